use std::sync::Arc;
use std::time::Duration;

use tokio::process::ChildStdin;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::output::{LastLines, LineTargets, drain};
use crate::spawn::{Pipes, Process};
use crate::{ExitReport, OutputStream, StopPlan, proc_facts};

/// From the stdin message to the first SIGTERM. The engine needs up to half a second to end by the message, and a signal
/// in that time can hang it (it takes locks in signal context; engine guide 2.1).
const AFTER_MESSAGE: Duration = Duration::from_secs(1);
/// How long writing the message may take: a full pipe means that nobody reads.
const MESSAGE_LIMIT: Duration = Duration::from_millis(100);
/// How long the pipes of an ended child are still read: a process that left the group may hold them open for ever.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// How urgently the end was asked for; it only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    Run,
    Stop,
    Kill,
}

/// A remote control for one child process; cloning gives another one. Dropping the last one changes nothing: the
/// supervisor owns the process and ends it at [`crate::Supervisor::shutdown`].
#[derive(Debug, Clone)]
pub struct Child {
    pub(crate) pid: u32,
    pub(crate) label: Arc<str>,
    pub(crate) wish: Arc<watch::Sender<Wish>>,
    pub(crate) exit: watch::Receiver<Option<ExitReport>>,
}

impl Child {
    /// Process id, for display. It may belong to somebody else once [`Child::exit`] has a report.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The label of its spec.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How it ended; `None` while it runs. Set within milliseconds of the end (promise R4).
    pub fn exit(&self) -> Option<ExitReport> {
        self.exit.borrow().clone()
    }

    /// Waits for the end, asked for or not. Cancel-safe.
    pub async fn wait(&self) -> ExitReport {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default(),
            // The owner task was dropped with the runtime, and the process with it.
            Err(_) => ExitReport {
                requested: true,
                ..ExitReport::default()
            },
        }
    }

    /// Stops the process and everything in its group, in the steps of its [`StopPlan`], and waits until it is reaped
    /// (promise R2). Any number of callers share one stop; it goes on when a caller is dropped.
    pub async fn stop(&self) -> ExitReport {
        self.ask(Wish::Stop);
        self.wait().await
    }

    /// Kills the process and its group at once, also while it starts or is being stopped, and waits until it is reaped.
    pub async fn kill(&self) -> ExitReport {
        self.ask(Wish::Kill);
        self.wait().await
    }

    pub(crate) fn ask(&self, wish: Wish) {
        self.wish.send_if_modified(|current| {
            let rises = wish > *current;
            *current = wish.max(*current);
            rises
        });
    }

    /// Resident memory in bytes, mapped files included; `None` after the end and where the system does not tell.
    pub fn memory_bytes(&self) -> Option<u64> {
        if self.exit.borrow().is_some() {
            return None;
        }
        proc_facts::resident_bytes(self.pid)
    }
}

/// What the owner task of a child holds.
pub(crate) struct Owner {
    pub(crate) process: Process,
    pub(crate) pipes: Pipes,
    pub(crate) stop: StopPlan,
    pub(crate) targets: LineTargets,
    pub(crate) wish: watch::Receiver<Wish>,
}

/// Where the stop ladder stands; each step has the time of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Running,
    Messaged,
    TermSent,
    SecondTermSent,
    Killed,
}

impl Owner {
    /// Owns the process until it is reaped and its output read. The only place that signals or waits for it.
    pub(crate) async fn run(self, tasks: &TaskTracker) -> ExitReport {
        let Self {
            mut process,
            pipes: (stdin, stdout, stderr),
            stop,
            targets,
            wish,
        } = self;
        let targets = Arc::new(targets);
        let last = Arc::clone(&targets.last);
        let drains = [
            stdout.map(|pipe| tasks.spawn(drain(pipe, OutputStream::Stdout, Arc::clone(&targets)))),
            stderr.map(|pipe| tasks.spawn(drain(pipe, OutputStream::Stderr, Arc::clone(&targets)))),
        ];
        drop(targets);
        let requested = ladder(&mut process, stdin, &stop, wish).await;
        // Before reaping: grandchildren go with the child (promise R2), and its number cannot yet be a stranger's.
        process.kill_group();
        let status = process.reap().await;
        let deadline = Instant::now() + DRAIN_LIMIT;
        for mut drain in drains.into_iter().flatten() {
            if tokio::time::timeout_at(deadline, &mut drain).await.is_err() {
                drain.abort();
            }
        }
        report(status, requested, &last)
    }
}

/// Runs until the process has ended (not yet reaped). Returns whether the end was asked for.
async fn ladder(
    process: &mut Process,
    stdin: Option<ChildStdin>,
    stop: &StopPlan,
    mut wish: watch::Receiver<Wish>,
) -> bool {
    // Held open to the end: EOF tells an engine that we are gone.
    let mut stdin = stdin;
    let mut step = Step::Running;
    let mut second_term_at = Instant::now();
    let mut next: Option<Instant> = None;
    let mut asked = Wish::Run;
    loop {
        tokio::select! {
            biased;
            () = process.ended() => return asked > Wish::Run,
            wanted = next_wish(&mut wish, asked), if asked < Wish::Kill => {
                asked = wanted;
                if asked == Wish::Kill {
                    process.kill_group();
                    (step, next) = (Step::Killed, None);
                } else {
                    second_term_at = Instant::now() + stop.grace;
                    let message = stop.stdin_message.as_deref();
                    if message.is_some() && write_message(stdin.as_mut(), message).await {
                        (step, next) = (Step::Messaged, Some((Instant::now() + AFTER_MESSAGE).min(second_term_at)));
                    } else {
                        process.terminate();
                        (step, next) = (Step::TermSent, Some(second_term_at));
                    }
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                (step, next) = match step {
                    Step::Messaged => {
                        process.terminate();
                        (Step::TermSent, Some(second_term_at))
                    }
                    Step::TermSent => {
                        process.terminate();
                        (Step::SecondTermSent, Some(Instant::now() + stop.second_term_grace))
                    }
                    Step::Running | Step::SecondTermSent | Step::Killed => {
                        process.kill_group();
                        (Step::Killed, None)
                    }
                };
            }
        }
    }
}

/// Waits for a wish above `asked`.
async fn next_wish(wish: &mut watch::Receiver<Wish>, asked: Wish) -> Wish {
    // Without any handle left the supervisor is gone too: end the child rather than leak it.
    wish.wait_for(|wish| *wish > asked)
        .await
        .map_or(Wish::Kill, |wish| *wish)
}

/// Whether the message went into the pipe. A child that reads nothing has room for it; a broken pipe has not.
async fn write_message(stdin: Option<&mut ChildStdin>, message: Option<&[u8]>) -> bool {
    use tokio::io::AsyncWriteExt;
    let (Some(stdin), Some(message)) = (stdin, message) else {
        return false;
    };
    matches!(timeout(MESSAGE_LIMIT, stdin.write_all(message)).await, Ok(Ok(())))
}

fn report(status: std::io::Result<std::process::ExitStatus>, requested: bool, last: &LastLines) -> ExitReport {
    let status = status.ok();
    #[cfg(unix)]
    let signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
    #[cfg(not(unix))]
    let signal = None;
    ExitReport {
        code: status.and_then(|status| status.code()),
        signal,
        requested,
        last_lines: last.take(),
    }
}
