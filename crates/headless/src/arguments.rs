//! The command line as fixed by the contract.

use std::path::PathBuf;

use app::{ServeFlags, StartOptions, VoicePack};
use clap::{Args, Parser, Subcommand};

/// Local models for Ollama and LM Studio apps, served by llama.cpp.
#[derive(Debug, Parser)]
#[command(
    name = "llama-runner",
    version,
    about,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where files are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Files {
    /// Configuration file [default: config.json in the user's configuration folder].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder for logs, downloads and the like [default: the user's data folder].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Files {
    /// Options of a start (or of looking things up) with these files and nothing else.
    pub(crate) fn options(&self) -> StartOptions {
        StartOptions {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            ..StartOptions::default()
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the server until it is told to stop.
    Serve(ServeFlags),
    /// List the models.
    #[command(visible_alias = "ls")]
    List(Target),
    /// List the loaded models.
    Ps(Target),
    /// Show a model's facts and state.
    Show(OnModel),
    /// Chat with a model; without PROMPT, interactively.
    Run(Run),
    /// Write down what is said in recordings.
    Transcribe(Transcribe),
    /// Say a text, or list the voices.
    Speak(Speak),
    /// Download a model: an Ollama name, hf.co/OWNER/REPO[:QUANT], the address of a GGUF file, or whisper-SIZE.
    Pull(Pull),
    /// Delete downloaded or created models.
    Rm(Rm),
    /// Give a model a second name.
    Cp(Cp),
    /// Load a model.
    Start(OnModel),
    /// Unload a model.
    Stop(Stop),
    /// Show the log of a model's engine or, without MODEL, of the server.
    Logs(Logs),
    /// Check the configuration file, print its schema or its place.
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Show, build or install engines: llama-server, and faster-whisper for speech.
    Engine {
        #[command(subcommand)]
        action: EngineAction,
    },
    /// Look for problems: ports and who holds them, engine, graphics cards, disk, settings.
    Doctor,
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print all HTTP routes.
    #[command(hide = true)]
    Routes,
}

/// Which server to ask.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Target {
    /// Machine the server runs on, with or without port [default: this one].
    #[arg(long, value_name = "ADDR")]
    pub(crate) host: Option<String>,
    /// Address of the server's management port, for example http://127.0.0.1:5800.
    #[arg(long, value_name = "URL", env = "LLAMA_RUNNER_MANAGEMENT_URL", hide_env = true)]
    pub(crate) management_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OnModel {
    /// Any name of the model.
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// What to download, for example `llama3.2`, `hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M`, `whisper-base`.
    pub(crate) model: String,
    /// Allow a registry without encryption.
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The models.
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Any name of the model.
    pub(crate) source: String,
    /// The new name.
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) on: OnModel,
    /// Cut running answers instead of letting them finish.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Any name of the model.
    pub(crate) model: String,
    /// What to say; read from standard input when that is not a terminal.
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
    /// Instructions for the model.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Randomness of the answer; 0: always the most likely one.
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Transcribe {
    /// Recordings or videos of any usual kind; `-`: standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Any name of a speech model [default: the server's].
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    /// Language that is spoken, for example `en` [default: found out].
    #[arg(short, long)]
    pub(crate) language: Option<String>,
    /// English text, whatever is spoken.
    #[arg(long)]
    pub(crate) translate: bool,
    /// What to write [default: by the ending of --output, else text].
    #[arg(short, long, value_enum)]
    pub(crate) format: Option<Transcript>,
    /// Print pieces as soon as they are heard: text, subtitles, or with `--format json` (or `--json`) one line of JSON
    /// for each segment. Not with verbose_json, which is known at the end only. What goes to --output is written at the
    /// end.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Text before the recording: names, spelling, style.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Times of single words too (verbose_json).
    #[arg(long)]
    pub(crate) words: bool,
    /// File to write; with several recordings, a folder. Folders that are missing are made.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// A form of a transcript (audio contract 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transcript {
    /// The words.
    Text,
    /// Words, language, times.
    Json,
    /// Subtitles (SubRip).
    Srt,
    /// Subtitles (WebVTT).
    Vtt,
    /// All that is known.
    #[value(name = "verbose_json")]
    VerboseJson,
}

#[derive(Debug, Args)]
pub(crate) struct Speak {
    /// What to say; `-` or nothing: standard input. Long texts are asked for in parts and written as one file (not FLAC).
    #[arg(value_name = "TEXT")]
    pub(crate) text: Vec<String>,
    /// File to write [default: standard output when that is piped, else the loudspeaker].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// A voice, see --voices.
    #[arg(short, long, default_value = "alloy")]
    pub(crate) voice: String,
    /// 0.25 to 4; 1 is normal.
    #[arg(short, long)]
    pub(crate) speed: Option<f64>,
    /// Kind of sound [default: by the ending of --output, else wav].
    #[arg(short, long, value_enum)]
    pub(crate) format: Option<Sound>,
    /// Any name of a voice model [default: the server's].
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    /// List the voices instead.
    #[arg(long)]
    pub(crate) voices: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// A kind of sound file (audio contract 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sound {
    /// MPEG layer 3.
    Mp3,
    /// Opus in an Ogg file.
    Opus,
    /// AAC in ADTS frames.
    Aac,
    /// FLAC.
    Flac,
    /// WAV.
    Wav,
    /// 24 kHz, 16 bit, mono, no header.
    Pcm,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Any name of a model.
    pub(crate) model: Option<String>,
    /// Go on printing new lines.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many lines back.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) lines: usize,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigAction {
    /// Check the file and say what is wrong where.
    Check,
    /// Print the JSON Schema.
    Schema,
    /// Print where the file is.
    Path,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum EngineAction {
    /// Show which engines are used.
    Info,
    /// Build llama-server from source, unless that was done before.
    Build,
    /// Show or install the speech engine.
    Whisper {
        #[command(subcommand)]
        action: SpeechAction,
    },
    /// List the voices that can be installed, with their licences, or install some.
    Voices {
        #[command(subcommand)]
        action: Option<VoicesAction>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum VoicesAction {
    /// List them [default].
    List,
    /// Show licence and size, ask, and install voices with the program that speaks with them.
    Install(InstallVoices),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InstallVoices {
    /// `kokoro` or `piper`.
    #[arg(value_parser = voice_pack)]
    pub(crate) pack: VoicePack,
    /// A voice of Piper's, for example `de_DE-thorsten-medium` [default: en_US-ljspeech-medium].
    #[arg(long, value_name = "NAME")]
    pub(crate) voice: Option<String>,
    /// Agree to the licence without being asked.
    #[arg(long)]
    pub(crate) yes: bool,
}

fn voice_pack(text: &str) -> Result<VoicePack, String> {
    VoicePack::named(text).ok_or_else(|| "there are kokoro and piper".to_owned())
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum SpeechAction {
    /// Show which Python and which faster-whisper are used.
    Info,
    /// Install faster-whisper in an environment of its own, unless that was done before. Needs Python 3.10 to 3.14.
    Install,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn serve_takes_every_documented_flag() {
        let line = "llama-runner serve --config c --data-dir d --models-dir a --models-dir b --ollama-port 1 \
                    --lmstudio-port 2 --management-port 3 --host ::1 --log-level debug --log-format json";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Verb::Serve(serve) = arguments.verb else {
            panic!("not serve")
        };
        let options = serve.on(arguments.files.options());
        assert_eq!(options.models_dirs, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(
            (options.ollama_port, options.lmstudio_port, options.management_port),
            (Some(1), Some(2), Some(3))
        );
        assert_eq!((options.config, options.data_dir), (Some("c".into()), Some("d".into())));
        assert_eq!(options.log_format.as_deref(), Some("json"));
    }
}
