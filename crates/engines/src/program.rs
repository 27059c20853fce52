//! The engines behind one face: what runs a model, how that is started, watched and asked, and why it ended. Whoever owns a
//! process asks here and knows no kind.

use std::net::SocketAddr;
use std::sync::Arc;

use domain::{EngineMode, FailureReport, LoadedLaunch, ModelEntry};
use supervisor::{ExitReport, LineDecoder, OutputLine};

use crate::custom::CustomProgram;
use crate::speech::{self, SpeechProgram, SpeechWatch};
use crate::{
    EngineBinary, EngineSettings, FailureCause, FailurePhase, Launch, StartSignal, StartWatch, failure, plan, start,
};

/// What runs a model, for one load of it.
#[derive(Debug, Clone)]
pub enum Program {
    /// llama.cpp's server.
    LlamaServer(Arc<EngineBinary>),
    /// Our speech program, hearing or speaking.
    Speech(SpeechProgram),
    /// A command of the user's.
    Custom(CustomProgram),
}

/// A question that only a working engine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Path to GET.
    pub path: String,
    /// The engine itself knows whether it is stuck: a status of 500 or more says so, also while it still sends signs of life.
    pub tells: bool,
}

impl Program {
    /// The command that starts `entry` as `launch` says; see [`crate::launch`].
    pub fn launch(&self, entry: &ModelEntry, launch: &LoadedLaunch, key: &str, settings: &EngineSettings) -> Launch {
        match self {
            Self::LlamaServer(binary) => crate::launch(binary, entry, launch, key, settings),
            Self::Speech(program) => speech::launch(program, entry, launch, key, &settings.speech),
            Self::Custom(program) => program.launch(entry, launch, key),
        }
    }

    /// Follows the output of a start.
    pub fn watch(&self) -> ProgramWatch {
        match self {
            Self::LlamaServer(_) => ProgramWatch(Watch::LlamaServer(StartWatch::new())),
            Self::Speech(program) => ProgramWatch(Watch::Speech {
                watch: SpeechWatch::default(),
                begins_at: if program.installed_now { INSTALLED } else { 0.0 },
            }),
            Self::Custom(program) => ProgramWatch(Watch::Custom(program.address())),
        }
    }

    /// What its lines become in the log.
    pub fn line_decoder(&self) -> LineDecoder {
        match self {
            Self::LlamaServer(_) => start::log_line,
            Self::Speech(_) => speech::log_line,
            Self::Custom(_) => start::plain_line,
        }
    }

    /// Path that answers 200 as soon as the engine is ready, for engines that do not announce it.
    pub fn health_path(&self) -> String {
        match self {
            Self::LlamaServer(_) | Self::Speech(_) => "/health".into(),
            Self::Custom(program) => program.health_path(),
        }
    }

    /// Path that answers 200 to the holder of the key, as proof that the process is ours (promise R7). A custom engine
    /// need not ask for a key.
    pub fn first_question(&self) -> String {
        match self {
            Self::LlamaServer(_) => "/v1/models".into(),
            Self::Speech(_) => "/stats".into(),
            Self::Custom(program) => program.health_path(),
        }
    }

    /// A first piece of work where only that proves that the engine can do it: with a GPU an engine can be healthy and fail
    /// every request after running out of memory (engine guide 2.1). Path and JSON body of a POST.
    pub fn warm_up(&self, mode: EngineMode) -> Option<(&'static str, &'static [u8])> {
        match self {
            Self::LlamaServer(binary) if !binary.devices.is_empty() => match mode {
                EngineMode::Completion => {
                    Some(("/completion", br#"{"prompt":"a","n_predict":1,"cache_prompt":false}"#))
                }
                EngineMode::Embedding => Some(("/v1/embeddings", br#"{"input":"a"}"#)),
                EngineMode::Rerank | EngineMode::Transcription | EngineMode::Speech => None,
            },
            Self::LlamaServer(_) | Self::Speech(_) | Self::Custom(_) => None,
        }
    }

    /// How the watchdog asks whether it still works. llama-server's `/health` would say yes in any case; `/metrics` is
    /// answered by the loop that computes (promise R9).
    pub fn pulse(&self) -> Pulse {
        let (path, tells) = match self {
            Self::LlamaServer(_) => ("/metrics".into(), false),
            Self::Speech(_) => ("/stats".into(), true),
            Self::Custom(program) => (program.health_path(), false),
        };
        Pulse { path, tells }
    }

    /// Why the process ended.
    pub fn ended(&self, exit: &ExitReport, phase: FailurePhase, entry: &ModelEntry) -> (FailureCause, FailureReport) {
        let (cause, reason) = match self {
            Self::LlamaServer(_) if phase == FailurePhase::Starting => {
                let cause = crate::failure_cause(exit, phase);
                return (cause, crate::start_failure(exit, entry));
            }
            Self::LlamaServer(_) => return (crate::failure_cause(exit, phase), crate::failure(exit, phase)),
            Self::Speech(_) => speech::ended(exit, phase),
            Self::Custom(_) => CustomProgram::ended(exit, phase),
        };
        (cause, failure::report(exit, cause, reason))
    }

    /// The next try after a start that ran out of memory (promise R12); `None`: give up and say so.
    pub fn degrade(&self, entry: &ModelEntry, failed: &LoadedLaunch, attempt: u32) -> Option<LoadedLaunch> {
        match self {
            Self::LlamaServer(binary) => plan::degrade(entry, failed, !binary.devices.is_empty(), attempt),
            Self::Speech(_) | Self::Custom(_) => None,
        }
    }
}

/// Where the loading of a model begins when the engine was installed for it first: the first half of the way.
pub const INSTALLED: f32 = 0.5;

/// Follows the output of one starting engine of any kind.
#[derive(Debug)]
pub struct ProgramWatch(Watch);

#[derive(Debug)]
enum Watch {
    LlamaServer(StartWatch),
    Speech { watch: SpeechWatch, begins_at: f32 },
    Custom(SocketAddr),
}

impl ProgramWatch {
    /// Where the engine will answer, when that is known before its first word.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Watch::Custom(address) => Some(*address),
            Watch::LlamaServer(_) | Watch::Speech { .. } => None,
        }
    }

    /// The next line, from either pipe.
    pub fn on_line(&mut self, line: &OutputLine) -> Option<StartSignal> {
        match &mut self.0 {
            Watch::LlamaServer(watch) => watch.on_line(line),
            Watch::Speech { watch, begins_at } => Some(match watch.on_line(line)? {
                StartSignal::Progress(progress) => StartSignal::Progress(*begins_at + (1.0 - *begins_at) * progress),
                other => other,
            }),
            Watch::Custom(_) => None,
        }
    }
}
