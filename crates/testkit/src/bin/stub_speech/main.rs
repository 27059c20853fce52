//! The stub speech engine: speaks the protocol of our speech program (`crates/engines/speech`) without Python or a model, and
//! misbehaves on command. It takes the place of the interpreter, so `-I -u speech_engine.py` before the program's own flags
//! are ignored. Faults of the process come from `STUB_*` variables ([`faults`]), those of one request from a script
//! ([`script`]).

#[path = "../stub_engine/death.rs"]
mod death;
mod faults;
mod jobs;
mod lifecycle;
#[path = "../stub_engine/record.rs"]
mod record;
mod script;
mod server;

use std::process::ExitCode;
use std::sync::Arc;

/// What the stub does with its flags; all others are accepted and ignored.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) speaks: bool,
    pub(crate) model: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--version" | "-V") => {
            lifecycle::print("Python 3.12.0 (stub)\n");
            return ExitCode::SUCCESS;
        }
        // A question to the interpreter: it has everything.
        _ if args.iter().any(|arg| arg == "-c") => {
            lifecycle::print("{\"python_version\": \"3.12.0\", \"faster_whisper\": \"1.2.1\"}\n");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let options = match parse(&args) {
        Ok(options) => options,
        Err(message) => {
            lifecycle::tell(&serde_json::json!({"event": "load_failed", "error": message}));
            return ExitCode::from(4);
        }
    };
    let faults = faults::Faults::from_env();
    // Before the runtime opens descriptors of its own.
    let record = record::Recorder::open(faults.record.as_deref());
    record.start();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(lifecycle::run(options, faults, Arc::new(record)));
            // A hung job or a blocked stdin thread must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(_) => ExitCode::from(1),
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let speaks = match value("--task").as_deref() {
        Some("transcribe") => false,
        Some("speak") => true,
        other => return Err(format!("--task must be transcribe or speak, not {other:?}")),
    };
    let port = value("--port").unwrap_or_else(|| "0".to_owned());
    Ok(Options {
        speaks,
        model: value("--model").ok_or("--model is missing")?,
        host: value("--host").unwrap_or_else(|| "127.0.0.1".to_owned()),
        port: port.parse().map_err(|_| format!("--port {port}"))?,
    })
}
