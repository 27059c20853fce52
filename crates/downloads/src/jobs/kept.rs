use std::path::PathBuf;

use domain::RegistryName;
use serde::{Deserialize, Serialize};
use store::JobRow;

use super::job::Job;
use crate::Source;

/// What a job needs beyond what is shown, in the form the database keeps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// What was asked for.
    pub(super) source: Option<Source>,
    /// Somebody wants it done whoever leaves.
    pub(super) held: bool,
    /// The final paths of its files, once known.
    pub(super) files: Vec<PathBuf>,
    /// Those that this job put there.
    pub(super) landed: Vec<PathBuf>,
}

/// The row of a job as it is now.
pub(super) fn row(job: &Job) -> Result<JobRow, serde_json::Error> {
    Ok(JobRow {
        id: job.id(),
        target: job.target().to_owned(),
        source: serde_json::to_string(&job.kept())?,
        view: job.view(),
    })
}

/// Equal for sources that fetch the same thing to the same place.
pub(super) fn target(source: &Source) -> String {
    match source {
        Source::Ollama { name, .. } => {
            let full = RegistryName::parse(name).map_or_else(|| name.clone(), |name| name.full());
            format!("ollama {}", full.to_ascii_lowercase())
        }
        Source::Hub { repo, file_or_quant } => {
            let which = file_or_quant.as_deref().unwrap_or_default();
            format!("hub {} {}", repo.to_ascii_lowercase(), which.to_ascii_lowercase())
        }
        // The same as the repository without a choice of files.
        Source::Whisper { repo } => format!("hub {} ", repo.to_ascii_lowercase()),
        Source::Voices { name } => format!("voices {name}"),
        Source::Url { url, file_name } => format!("url {url} {}", file_name.as_deref().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_has_the_same_target() {
        let ollama = |name: &str| {
            target(&Source::Ollama {
                name: name.into(),
                insecure: false,
            })
        };
        assert_eq!(ollama("Llama3"), ollama("registry.ollama.ai/library/llama3:latest"));
        assert_ne!(ollama("llama3:8b"), ollama("llama3"));
        let hub = |repo: &str, which: Option<&str>| {
            target(&Source::Hub {
                repo: repo.into(),
                file_or_quant: which.map(Into::into),
            })
        };
        assert_eq!(hub("A/b", Some("q4_k_m")), hub("a/B", Some("Q4_K_M")));
        assert_ne!(hub("a/b", Some("q8_0")), hub("a/b", None));
        let whisper = target(&Source::Whisper { repo: "A/b".into() });
        assert_eq!(whisper, hub("a/b", None));
    }
}
