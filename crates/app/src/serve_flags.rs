//! The flags that `llama-runner serve` and `llama-runner-desktop` share: one home, so the two cannot drift apart.

use std::path::PathBuf;

use crate::StartOptions;

/// Flags of a start, beside the folders and files (compat/cli-and-config).
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// Folder with GGUF files; may be given several times.
    #[arg(long = "models-dir", value_name = "DIR")]
    models_dirs: Vec<PathBuf>,
    /// Port for Ollama's clients; 0: any free port.
    #[arg(long, value_name = "N")]
    ollama_port: Option<u16>,
    /// Port for LM Studio's clients; 0: any free port.
    #[arg(long, value_name = "N")]
    lmstudio_port: Option<u16>,
    /// Port for management and the window; 0: any free port.
    #[arg(long, value_name = "N")]
    management_port: Option<u16>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDR")]
    host: Option<String>,
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "L")]
    log_level: Option<String>,
    /// text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ServeFlags {
    /// These flags on top of `base`.
    pub fn on(self, base: StartOptions) -> StartOptions {
        StartOptions {
            models_dirs: self.models_dirs,
            ollama_port: self.ollama_port,
            lmstudio_port: self.lmstudio_port,
            management_port: self.management_port,
            host: self.host,
            log_level: self.log_level,
            log_format: self.log_format,
            ..base
        }
    }
}
