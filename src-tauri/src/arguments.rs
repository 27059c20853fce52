//! The command line: the flags of `llama-runner serve`, and how the desktop shows itself.

use std::path::PathBuf;

use app::{ServeFlags, StartOptions};
use clap::{Parser, ValueEnum};

/// Tray and window of LlamaRunner. Without a display, use `llama-runner serve`.
#[derive(Debug, Parser)]
#[command(name = "llama-runner-desktop", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Start in the tray, without a window.
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Colours of the desktop's panel, for the tray icon.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) panel: Panel,
    /// Configuration file [default: config.json in the user's configuration folder].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for logs, downloads and the like [default: the user's data folder].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    flags: ServeFlags,
}

/// What the tray icon stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Panel {
    /// By the desktop's habits and theme.
    #[default]
    Auto,
    /// A dark panel: a white icon.
    Dark,
    /// A light panel: a dark icon.
    Light,
}

impl Arguments {
    /// What the core is started with.
    pub(crate) fn start_options(&self) -> StartOptions {
        self.flags.clone().on(StartOptions {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            desktop: true,
            ..StartOptions::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Arguments::command().debug_assert();
        let arguments = Arguments::parse_from([
            "x",
            "--hidden",
            "--models-dir",
            "a",
            "--models-dir",
            "b",
            "--ollama-port",
            "0",
        ]);
        let options = arguments.start_options();
        assert!(arguments.hidden && options.desktop);
        assert_eq!((options.models_dirs.len(), options.ollama_port), (2, Some(0)));
    }
}
