//! Writing a model's weights anew in another type: a child like any other, for as long as somebody waits for it.

use std::path::Path;

use domain::{ErrorKind, RunnerError};
use supervisor::ChildSpec;
use telemetry::LogRing;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::Router;

/// Lines of its output kept for the reason of a failure.
const LOG_LINES: usize = 200;
const LOG_BYTES: usize = 64 << 10;

impl Router {
    /// Writes `input` as `kind` (`Q8_0`, …) to `output`. `progress` hears how far it is, from 0 to 1. Dropping the future
    /// ends the program.
    ///
    /// # Errors
    /// `InvalidRequest` when the engine came without the program; `EngineFailed` with its last words.
    pub async fn quantize(
        &self,
        input: &Path,
        output: &Path,
        kind: &str,
        mut progress: impl FnMut(f32) + Send,
    ) -> Result<(), RunnerError> {
        let deps = &self.core.deps;
        let binary = deps
            .engines
            .llama_server()
            .await
            .map_err(|error| RunnerError::from(&error))?;
        let Some(program) = engines::quantizer(&binary) else {
            return Err(RunnerError::invalid(
                "quantize is not available: there is no llama-quantize beside the engine's program",
            )
            .param("quantize"));
        };
        let command = engines::quantize(program, input, output, kind);
        let spec = ChildSpec {
            label: "llama-quantize".into(),
            program: command.program,
            args: command.args,
            env: command.env,
            cwd: None,
            stop: command.stop,
            log: LogRing::new(LOG_LINES, LOG_BYTES),
        };
        let (child, mut lines) = deps.supervisor.spawn(spec).await.map_err(|error| {
            tracing::error!(%error, "cannot start llama-quantize");
            RunnerError::new(ErrorKind::EngineFailed, "llama-quantize could not be started.")
        })?;
        // The process outlives this future by the moment it takes to end it.
        let left = CancellationToken::new();
        let _guard = left.clone().drop_guard();
        let (ended, end) = oneshot::channel();
        let closed = self.core.closed.clone();
        self.core.background.spawn(async move {
            let exit = tokio::select! {
                exit = child.wait() => exit,
                () = left.cancelled() => child.kill().await,
                () = closed.cancelled() => child.kill().await,
            };
            // Nobody hears it when the caller left.
            let _ = ended.send(exit);
        });
        while let Some(line) = lines.recv().await {
            if let Some(share) = engines::quantize_progress(&line.text) {
                progress(share);
            }
        }
        let exit = end
            .await
            .map_err(|_| RunnerError::internal("llama-quantize was lost."))?;
        if exit.code == Some(0) {
            return Ok(());
        }
        let words = exit.last_lines.last().map(|line| domain::without_paths(line));
        Err(RunnerError::new(
            ErrorKind::EngineFailed,
            format!("llama-quantize failed: {}", words.unwrap_or_default()),
        ))
    }
}
