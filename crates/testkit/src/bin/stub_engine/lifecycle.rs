//! Start, load, ready, end: in the order and with the lines of the real engine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::args::Options;
use crate::death::{Death, die};
use crate::faults::Faults;
use crate::record::Recorder;
use crate::server::Shared;

/// First argument of the forked grandchild.
pub(crate) const GRANDCHILD_ARGUMENT: &str = "--stub-grandchild";

const EXIT_MESSAGE: &str = "cmd_router_to_child:exit";

/// Writes to both streams; a broken pipe is nobody's problem here.
pub(crate) fn print(stdout: &str, stderr: &str) {
    let _ = std::io::stdout().write_all(stdout.as_bytes());
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().write_all(stderr.as_bytes());
}

/// Log lines in the engine's two forms. In child mode stdout belongs to the router, so JSON lines go to stderr.
#[derive(Debug)]
pub(crate) struct Log {
    started: Instant,
    jsonl: bool,
    child_mode: bool,
}

impl Log {
    pub(crate) fn line(&self, level: &str, text: &str) {
        let us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if self.jsonl {
            let line = format!(
                "{}\n",
                json!({"type": "log", "time": us, "level": level, "msg": format!("{text}\n")})
            );
            let (stdout, stderr) = if self.child_mode {
                ("", line.as_str())
            } else {
                (line.as_str(), "")
            };
            print(stdout, stderr);
        } else {
            let letter = level.chars().next().unwrap_or('i').to_ascii_uppercase();
            let (minutes, seconds) = (us / 60_000_000, us / 1_000_000 % 60);
            print(
                "",
                &format!(
                    "{minutes}.{seconds:02}.{:03}.{:03} {letter} {text}\n",
                    us / 1000 % 1000,
                    us % 1000
                ),
            );
        }
    }

    fn state(&self, state: &str, payload: &serde_json::Value) {
        if self.child_mode {
            print(
                &format!(
                    "cmd_child_to_router:state:{}\n",
                    json!({"state": state, "payload": payload})
                ),
                "",
            );
        }
    }

    fn progress(&self, value: f64) {
        self.state(
            "loading",
            &json!({"stages": ["text_model"], "current": "text_model", "value": value}),
        );
    }
}

pub(crate) async fn run(options: Arc<Options>, faults: Arc<Faults>, record: Arc<Recorder>) -> ExitCode {
    let log = Arc::new(Log {
        started: Instant::now(),
        jsonl: options.jsonl,
        child_mode: options.child_mode,
    });
    // The real engine installs its handlers after loading; one that ignores signals must do so from the beginning.
    let deaf = if faults.ignore_term { signals() } else { None };
    log.line("info", "srv  llama_server: initializing ...");
    tokio::time::sleep(faults.bind_delay).await;
    let fail = |death| {
        if let Some(message) = &faults.die_message {
            log.line("error", message);
        }
        die(death)
    };
    if let Some(death) = faults.die_before_bind {
        fail(death);
    }
    let host = options.host.split(',').next().unwrap_or_default();
    let Ok(listener) = TcpListener::bind((host, options.port)) else {
        log.line(
            "error",
            &format!(
                "srv  start: couldn't bind HTTP server socket, hostname: {host}, port: {}",
                options.port
            ),
        );
        log.line("error", "srv  llama_server: exiting due to HTTP server error");
        return ExitCode::from(1);
    };
    let port = listener.local_addr().map_or(0, |address| address.port());
    record.write(&json!({"event": "bound", "port": port}));
    let keep = listener.try_clone().ok();
    let shared = Arc::new(Shared::new(
        Arc::clone(&options),
        Arc::clone(&faults),
        Arc::clone(&record),
        Arc::clone(&log),
    ));
    let server = crate::server::start(listener, Arc::clone(&shared));

    log.line("info", &format!("srv    load_model: loading model '{}'", options.model));
    log.progress(0.0);
    if let Err(why) = check_model(&options.model) {
        log.line("error", &why);
        log.line(
            "error",
            &format!("srv    load_model: failed to load model, '{}'", options.model),
        );
        log.line("error", "srv  llama_server: exiting due to model loading error");
        return ExitCode::from(1);
    }
    load(&faults, &log, &fail).await;
    log.progress(1.0);
    prepare_faults(&faults, &record, keep);
    shared.set_ready();
    log.line("info", "srv  llama_server: model loaded");
    let told = if faults.wrong_port { 1 } else { port };
    // No await between the handlers and the lines: who reads "listening" may send SIGTERM at once.
    let signals = deaf.or_else(signals);
    log.line("info", &format!("srv  llama_server: listening on http://{host}:{told}"));
    log.state("ready", &crate::answer::model_info(&options));
    let message = Arc::new(Notify::new());
    if options.child_mode {
        watch_stdin(Arc::clone(&message), Arc::clone(&record), faults.ignore_term);
    }
    if let Some(death) = faults.die_ready {
        tokio::time::sleep(faults.die_after).await;
        fail(death);
    }
    let code = wait_for_end(signals, &message, &shared, &record, &log).await;
    drop(server);
    code
}

async fn load(faults: &Faults, log: &Log, fail: &impl Fn(Death) -> ExitCode) {
    let steps = faults.load_steps.max(1);
    for step in 1..=steps {
        if step * 2 > steps
            && let Some(gate) = &faults.load_gate
        {
            while !gate.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        if let Some(death) = faults.die_loading.filter(|_| step * 2 > steps) {
            fail(death);
        }
        tokio::time::sleep(faults.load / steps).await;
        if faults.load_steps > 0 && step < steps && !faults.load.is_zero() {
            if faults.load_dots {
                print("", ".");
            } else {
                log.progress(f64::from(step) / f64::from(steps));
            }
        }
    }
}

/// The real engine refuses missing files and files without the GGUF magic within milliseconds.
fn check_model(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    let mut magic = [0; 4];
    match std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!(
            "gguf_init_from_file: failed to open GGUF file '{path}' (No such file or directory)"
        )),
        Ok(()) if &magic == b"GGUF" => Ok(()),
        _ => Err("gguf_init_from_file: invalid magic characters, expected 'GGUF'".to_owned()),
    }
}

fn prepare_faults(faults: &Faults, record: &Recorder, listener: Option<TcpListener>) {
    if faults.alloc_mib > 0 {
        // Written, so that it is resident; leaked, so that it stays.
        Box::leak(vec![1_u8; faults.alloc_mib << 20].into_boxed_slice());
    }
    if let Some(listener) = listener.filter(|_| faults.grandchild)
        && let Ok(exe) = std::env::current_exe()
    {
        // The listening socket travels as stdin: the only descriptor std passes on without unsafe code.
        let started = Command::new(exe)
            .arg(GRANDCHILD_ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn();
        if let Ok(child) = started {
            record.write(&json!({"event": "grandchild", "pid": child.id()}));
        }
    }
    let (mib, lines) = (faults.stderr_mib, faults.stderr_lines);
    if mib > 0 || lines > 0 {
        std::thread::spawn(move || {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..mib {
                let _ = std::io::stderr().write_all(&block);
            }
            for n in 0..lines {
                let _ = std::io::stderr().write_all(format!("{n:0>99}\n").as_bytes());
            }
        });
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

fn signals() -> Option<Signals> {
    Some(Signals {
        term: signal(SignalKind::terminate()).ok()?,
        int: signal(SignalKind::interrupt()).ok()?,
    })
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Child mode: the exit message ends gracefully, the end of stdin ends at once with 1, as measured.
fn watch_stdin(message: Arc<Notify>, record: Arc<Recorder>, deaf: bool) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_ok_and(|line| line == EXIT_MESSAGE) {
                record.asked("message");
                if !deaf {
                    message.notify_one();
                }
            }
        }
        record.asked("stdin_eof");
        if !deaf {
            die(Death::Exit(1));
        }
    });
}

/// The first wish ends the process once no request runs, the second at once: as measured.
async fn wait_for_end(
    signals: Option<Signals>,
    message: &Notify,
    shared: &Shared,
    record: &Recorder,
    log: &Log,
) -> ExitCode {
    let Some(mut signals) = signals else {
        return ExitCode::from(1);
    };
    let deaf = shared.faults.ignore_term;
    let (mut asked, mut interrupted) = (false, false);
    loop {
        tokio::select! {
            () = signals.next() => {
                record.asked("term");
                // The message does not count: the real engine's first signal after it is still a first one.
                if interrupted && !deaf {
                    log.line("warn", "Received second interrupt, terminating immediately.");
                    return ExitCode::from(1);
                }
                (asked, interrupted) = (true, true);
            }
            () = message.notified() => asked = true,
            () = shared.idle(), if asked && !deaf => {
                log.line("info", "srv    operator(): operator(): cleaning up before exit...");
                return ExitCode::SUCCESS;
            }
        }
        if asked {
            shared.close();
        }
    }
}

/// Holds the listening socket (its stdin) and ignores what would end it.
pub(crate) fn grandchild() -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::from(1);
    };
    runtime.block_on(async {
        if let Some(mut signals) = signals() {
            loop {
                signals.next().await;
            }
        }
        tokio::time::sleep(Duration::from_hours(1)).await;
        ExitCode::SUCCESS
    })
}
