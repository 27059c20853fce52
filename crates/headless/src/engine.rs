//! `engine`: info, build and install.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;

use app::{SpeechInfo, SpeechState};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::arguments::{EngineAction, Files, SpeechAction, VoicesAction};
use crate::failure::Failure;
use crate::output::Output;
use crate::voices;

pub(crate) async fn engine(action: EngineAction, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    match action {
        EngineAction::Info => info(files, output).await,
        EngineAction::Build => build(files, output).await,
        EngineAction::Whisper { action } => match action {
            SpeechAction::Info => speech_info(files, output).await,
            SpeechAction::Install => install(files, output).await,
        },
        EngineAction::Voices { action } => match action.unwrap_or(VoicesAction::List) {
            VoicesAction::List => voices::list(files, output),
            VoicesAction::Install(options) => voices::install(&options, files, output).await,
        },
    }
}

async fn info(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let info = app::engine_info(&files.options()).await?;
    if output.json {
        output.document(&info)?;
        return Ok(ExitCode::from(u8::from(!info.available)));
    }
    let Some(path) = &info.path else {
        output.table(&["ENGINE", ""], &speech_rows(&info.speech))?;
        return Err(Failure::new(info.error.unwrap_or_default()));
    };
    let mut rows = vec![vec!["llama-server".to_owned(), path.display().to_string()]];
    let mut row = |label: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push(vec![label.to_owned(), value]);
        }
    };
    row("version", info.version.clone());
    row("build", info.build.map(|build| build.to_string()));
    row("commit", info.commit.clone());
    row(
        "devices",
        Some(if info.devices.is_empty() {
            "CPU only".to_owned()
        } else {
            info.devices.join(", ")
        }),
    );
    rows.extend(speech_rows(&info.speech));
    output.table(&["ENGINE", ""], &rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn speech_info(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let info = app::engine_info(&files.options()).await?.speech;
    if output.json {
        output.document(&info)?;
    } else {
        output.table(&["ENGINE", ""], &speech_rows(&info))?;
    }
    Ok(ExitCode::from(u8::from(info.state != SpeechState::Ready)))
}

fn speech_rows(info: &SpeechInfo) -> Vec<Vec<String>> {
    let state = match info.state {
        SpeechState::Ready => "ready",
        SpeechState::Installing => "being installed",
        SpeechState::Missing => "not installed; made at its first use, or with `llama-runner engine whisper install`",
        SpeechState::Broken => "cannot be used",
    };
    let mut rows = vec![vec!["faster-whisper".to_owned(), state.to_owned()]];
    let mut row = |label: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push(vec![label.to_owned(), value]);
        }
    };
    row("version", info.faster_whisper.clone());
    row("python", info.python.as_ref().map(|path| path.display().to_string()));
    row("python version", info.python_version.clone());
    row("named by", info.named_by.map(str::to_owned));
    row(
        "espeak-ng",
        info.espeak_ng.as_ref().map(|path| path.display().to_string()),
    );
    row("error", info.error.clone());
    rows
}

async fn install(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let options = files.options();
    if let Some(by) = app::engine_info(&options).await?.speech.named_by {
        let why = format!(
            "{by} names a Python for speech, so nothing is installed; remove it to use an environment of our own"
        );
        return Err(Failure::new(why));
    }
    let quiet = output.json;
    let installed = tokio::task::spawn_blocking(move || {
        let display = Display::new(quiet);
        let installed = app::install_speech(&options, &|progress| {
            display.show(progress.fraction, &format!("{:?}", progress.step), &progress.message);
        });
        display.end();
        installed
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    let path = installed.map_err(|error| Failure::new(error.to_string()))?;
    if output.json {
        output.document(&json!({ "python": path }))?;
    } else {
        output.line(&format!("The speech engine is ready: {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn build(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let options = files.options();
    let quiet = output.json;
    let built = tokio::task::spawn_blocking(move || {
        let display = Display::new(quiet);
        let built = app::build_engine(&options, &|progress| {
            display.show(progress.fraction, &format!("{:?}", progress.step), &progress.message);
        });
        display.end();
        built
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    let path = built.map_err(|error| Failure::new(error.to_string()))?;
    if output.json {
        output.document(&json!({ "path": path }))?;
    } else {
        output.line(&format!("llama-server is ready: {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar on a terminal, a line per step and ten percent elsewhere; both on stderr.
pub(crate) struct Display {
    bar: Option<ProgressBar>,
    /// The last line printed.
    last: Mutex<String>,
    quiet: bool,
}

impl Display {
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {elapsed}\n{msg}");
            ProgressBar::new(1000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            last: Mutex::default(),
            quiet,
        }
    }

    pub(crate) fn show(&self, fraction: f32, step: &str, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position((f64::from(fraction) * 1000.0) as u64);
            bar.set_message(message.to_owned());
        } else if !self.quiet {
            let percent = (fraction * 10.0) as u32 * 10;
            let step = format!("{percent}% {step}");
            let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if *last != step {
                let line = format!("[{percent:>3}%] {message}\n");
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
                *last = step;
            }
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
