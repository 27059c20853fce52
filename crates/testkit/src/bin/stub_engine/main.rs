//! The stub engine: speaks llama-server's HTTP, flags and output lines (measured on build 11549) without a model, and
//! misbehaves on command. Faults of the process come from `STUB_*` variables ([`faults`]), faults of one request from a
//! `stub` object in its JSON body or an `x-stub` header with the same JSON ([`script`]).

mod answer;
mod answers;
mod args;
mod death;
mod faults;
mod lifecycle;
mod plan;
mod record;
mod script;
mod server;
mod stream;

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(lifecycle::GRANDCHILD_ARGUMENT) {
        return lifecycle::grandchild();
    }
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(args::Parsed::Run(options)) => options,
        Ok(args::Parsed::Print(stdout, stderr)) => {
            lifecycle::print(&stdout, &stderr);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            lifecycle::print("", &message);
            return ExitCode::from(1);
        }
    };
    let faults = match faults::Faults::from_env() {
        Ok(faults) => faults,
        Err(message) => {
            lifecycle::print("", &format!("{message}\n"));
            return ExitCode::from(1);
        }
    };
    // Before the runtime opens descriptors of its own.
    let record = record::Recorder::open(faults.record.as_deref());
    record.start();
    let runtime = match faults.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        n => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n)
            .enable_all()
            .build(),
    };
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(lifecycle::run(Arc::new(options), Arc::new(faults), Arc::new(record)));
            // A hung request or a blocked stdin thread must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            lifecycle::print("", &format!("no runtime: {error}\n"));
            ExitCode::from(1)
        }
    }
}
