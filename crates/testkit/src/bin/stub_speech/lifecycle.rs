//! Start, load, ready, end: with the lines and exit codes of the program.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::Options;
use crate::death::{Death, die};
use crate::faults::Faults;
use crate::record::Recorder;
use crate::script::wait_for_file;
use crate::server::{self, Shared};

/// Time for running jobs to see that they are cancelled.
const GRACE: Duration = Duration::from_secs(5);

/// A broken pipe is nobody's problem here.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// One line for the supervisor.
pub(crate) fn tell(line: &Value) {
    print(&format!("{line}\n"));
}

fn fail(faults: &Faults, death: Death) -> ! {
    if let Some(message) = &faults.die_message {
        let _ = std::io::stderr().write_all(format!("{message}\n").as_bytes());
    }
    die(death)
}

pub(crate) async fn run(options: Options, faults: Faults, record: Arc<Recorder>) -> ExitCode {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return ExitCode::from(1);
    };
    if let Some(death) = faults.die_before_bind {
        fail(&faults, death);
    }
    let Ok(listener) = TcpListener::bind((options.host.as_str(), options.port)) else {
        tell(&json!({"event": "log", "level": "error", "message": "the port is taken"}));
        return ExitCode::from(1);
    };
    let port = listener.local_addr().map_or(0, |address| address.port());
    record.write(&json!({"event": "bound", "port": port}));
    let shared = Arc::new(Shared::new(options, faults, Arc::clone(&record)));
    let _server = server::start(listener, Arc::clone(&shared));
    tell(&json!({"event": "listening", "port": port}));
    let end = Arc::new(Notify::new());
    watch_stdin(Arc::clone(&end), Arc::clone(&shared));
    let faults = &shared.faults;
    tokio::select! {
        failed = load(&shared) => {
            if let Some(why) = failed {
                tell(&json!({"event": "load_failed", "error": why}));
                return ExitCode::from(3);
            }
        }
        () = end.notified() => return ExitCode::SUCCESS,
        _ = term.recv(), if !faults.ignore_term => {
            record.asked("term");
            return ExitCode::SUCCESS;
        }
    }
    shared.set_ready();
    let languages = if faults.multilingual {
        json!(["en", "de", "fr"])
    } else {
        json!(["en"])
    };
    tell(
        &json!({"event": "ready", "port": port, "device": "cpu", "compute_type": "int8",
        "multilingual": faults.multilingual, "translates": faults.multilingual && faults.translates,
        "languages": languages}),
    );
    if let Some(death) = faults.die_ready {
        fail(faults, death);
    }
    loop {
        tokio::select! {
            _ = term.recv() => record.asked("term"),
            _ = int.recv() => record.asked("term"),
            () = end.notified() => {}
        }
        if !faults.ignore_term {
            break;
        }
    }
    shared.cancel();
    let _ = tokio::time::timeout(GRACE, shared.idle()).await;
    ExitCode::SUCCESS
}

/// Why the model could not be loaded.
async fn load(shared: &Shared) -> Option<String> {
    let faults = &shared.faults;
    let steps = faults.load_steps.max(1);
    for step in 0..steps {
        tell(&json!({"event": "loading", "progress": f64::from(step) / f64::from(steps)}));
        if step * 2 >= steps
            && let Some(gate) = &faults.load_gate
        {
            wait_for_file(gate).await;
        }
    }
    if let Some(death) = faults.die_loading {
        fail(faults, death);
    }
    if let Some(why) = &faults.load_failed {
        shared.set_failed(why.clone());
    }
    faults.load_failed.clone()
}

/// The end of stdin is the end of the runner.
fn watch_stdin(end: Arc<Notify>, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        shared.record.asked("stdin_eof");
        if !shared.faults.ignore_term {
            end.notify_one();
        }
    });
}
