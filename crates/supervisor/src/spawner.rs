use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::leftovers::StateFolder;
use crate::spawn::{self, Pipes, Process};
use crate::{ChildSpec, SupervisorError, proc_facts};

/// The one thread that forks (promise R1: the parent-death signal of Linux is sent when the *thread* that forked ends).
/// It lives as long as any handle to it: the supervisor has one and every owner task has one.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    jobs: mpsc::UnboundedSender<Job>,
}

enum Job {
    Spawn {
        spec: Arc<ChildSpec>,
        tag: String,
        answer: oneshot::Sender<io::Result<(Process, Pipes)>>,
    },
    Forget {
        tag: String,
        done: oneshot::Sender<()>,
    },
}

impl Spawner {
    pub(crate) fn start(state: StateFolder) -> Result<Self, SupervisorError> {
        let runtime = Handle::try_current().map_err(|_| SupervisorError::NoRuntime)?;
        let (jobs, queue) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("child-spawner".to_owned())
            .spawn(move || run(&runtime, &state, queue))
            .map_err(SupervisorError::Thread)?;
        Ok(Self { jobs })
    }

    /// Starts a process and writes its state file. When the caller is dropped meanwhile, the process is killed.
    pub(crate) async fn spawn(&self, spec: Arc<ChildSpec>, tag: String) -> Result<(Process, Pipes), SupervisorError> {
        let program = spec.program.clone();
        let (answer, answered) = oneshot::channel();
        let gone = |_| SupervisorError::ShuttingDown;
        self.jobs
            .send(Job::Spawn { spec, tag, answer })
            .map_err(|_| SupervisorError::ShuttingDown)?;
        answered
            .await
            .map_err(gone)?
            .map_err(|source| SupervisorError::Spawn { program, source })
    }

    /// Removes the state file of a child that was reaped.
    pub(crate) async fn forget(&self, tag: String) {
        let (done, is_done) = oneshot::channel();
        // Without the thread the app is ending; the next start removes the file.
        let _ = self.jobs.send(Job::Forget { tag, done });
        let _ = is_done.await;
    }
}

fn run(runtime: &Handle, state: &StateFolder, mut queue: mpsc::UnboundedReceiver<Job>) {
    let _inside = runtime.enter();
    while let Some(job) = queue.blocking_recv() {
        match job {
            Job::Forget { tag, done } => {
                state.remove(&tag);
                // The owner task may be gone with the runtime.
                let _ = done.send(());
            }
            Job::Spawn { spec, tag, answer } => {
                let started = spawn::spawn(&spec, &tag);
                if let Ok((process, _)) = &started {
                    proc_facts::offer_to_oom_killer(process.pid);
                    if let Err(error) = state.write(&tag, &spec.label, process.pid) {
                        // Not fatal: the file only helps after a crash that the parent-death signal did not cover.
                        tracing::warn!(label = spec.label, %error, "cannot write the state file of a child");
                    }
                }
                if let Err(Ok((mut process, _))) = answer.send(started) {
                    process.kill_group();
                    state.remove(&tag);
                }
            }
        }
    }
}
