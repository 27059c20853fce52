//! `serve`: the ready line, then signals.

use std::io::Write;
use std::process::ExitCode;

use app::{AppHandle, StartOptions};

use crate::failure::Failure;

/// Runs the server until a signal.
pub(crate) async fn serve(options: StartOptions) -> Result<ExitCode, Failure> {
    // Before anything is started, so that no signal finds the default action.
    let mut signals = Signals::listen()?;
    let app = match app::start(options).await {
        Ok(app) => app,
        Err(error) => {
            if let app::StartError::NothingBound(report) = &error {
                print_line(&report.line());
            }
            return Err(error.into());
        }
    };
    print_line(&app.ready().line());
    loop {
        match signals.next().await {
            Signal::Stop => break,
            Signal::Reload => reload(&app).await,
        }
    }
    let stopping = app.shutdown();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => return Ok(ExitCode::SUCCESS),
            signal = signals.next() => if matches!(signal, Signal::Stop) { app.hurry() },
        }
    }
}

/// Reading the file blocks for a moment, which no request should notice.
async fn reload(app: &AppHandle) {
    let app = app.clone();
    // A refused file is in the log and in /v1/state.
    let _ = tokio::task::spawn_blocking(move || app.reload()).await;
}

/// The one line on stdout. Whoever started us may not read it.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

enum Signal {
    Stop,
    Reload,
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Without a console there is no Ctrl-C; the service then ends with its session.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Stop
    }
}
