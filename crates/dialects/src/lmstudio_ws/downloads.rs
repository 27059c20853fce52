//! Downloads (contract 10.10): a job as steps of a channel, and search results.

use domain::{JobState, JobView};
use serde::Serialize;
use serde_json::{Value, json};

/// What a look at a download job says to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum DownloadStep {
    /// A message.
    Say(DownloadMessage),
    /// It failed, for this reason.
    Failed(String),
    /// Nothing to say yet.
    Nothing,
}

/// Messages of `downloadModel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum DownloadMessage {
    /// How far it is.
    DownloadProgress {
        /// Counts.
        update: DownloadUpdate,
    },
    /// Everything is there and is being checked. Once.
    StartFinalizing,
    /// The last message.
    #[serde(rename_all = "camelCase")]
    Success {
        /// What the model is loaded by.
        default_identifier: String,
    },
}

/// How far a download is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadUpdate {
    /// There already.
    pub downloaded_bytes: u64,
    /// In all.
    pub total_bytes: u64,
    /// In a second.
    pub speed_bytes_per_second: u64,
}

/// Renders a job. What it was stored as is its identifier until the caller knows a better one.
pub fn download_step(job: &JobView) -> DownloadStep {
    let failed = |without: &str| DownloadStep::Failed(job.error.clone().unwrap_or_else(|| without.to_owned()));
    match job.state {
        JobState::Queued | JobState::Resolving => DownloadStep::Nothing,
        JobState::Downloading => match job.bytes_total {
            Some(total) => DownloadStep::Say(DownloadMessage::DownloadProgress {
                update: DownloadUpdate {
                    downloaded_bytes: job.bytes_done.min(total),
                    total_bytes: total,
                    speed_bytes_per_second: job.bytes_per_second,
                },
            }),
            None => DownloadStep::Nothing,
        },
        JobState::Verifying => DownloadStep::Say(DownloadMessage::StartFinalizing),
        JobState::Completed => DownloadStep::Say(DownloadMessage::Success {
            default_identifier: job.model.as_ref().unwrap_or(&job.name).clone(),
        }),
        JobState::Paused => failed("The download was paused; what is there is kept."),
        JobState::Failed => failed("The download failed; what is there is kept."),
        JobState::Cancelled => DownloadStep::Failed("The download was cancelled.".to_owned()),
    }
}

/// Results of a search: names on the hub.
pub fn search_results(repositories: &[String], exact: Option<&str>) -> Value {
    let results: Vec<Value> = repositories
        .iter()
        .map(|name| {
            let mut result = json!({"name": name, "identifier": {"type": "hf", "identifier": name}});
            if exact.is_some_and(|term| term.eq_ignore_ascii_case(name)) {
                result["exact"] = true.into();
            }
            result
        })
        .collect();
    json!({"results": results})
}

/// One way to download a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadOption {
    /// Quantization label; none: the file name has none.
    pub quantization: Option<String>,
    /// File name, of a split model the first part's.
    pub file: String,
    /// Bytes in all.
    pub size: u64,
    /// What is taken when nothing is said.
    pub recommended: bool,
}

/// Memory that a model may fill, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of all GPUs.
    pub gpu: u64,
    /// Of the machine.
    pub ram: u64,
}

impl Room {
    fn estimate(self, size: u64) -> &'static str {
        if size <= self.gpu {
            "fullGPUOffload"
        } else if self.gpu > 0 && size <= self.gpu.saturating_add(self.ram) {
            "partialGPUOffload"
        } else if size <= self.ram {
            "fitWithoutGPU"
        } else {
            "willNotFit"
        }
    }
}

/// The result of `getModelDownloadOptions`.
pub fn download_options(repository: &str, options: &[DownloadOption], room: Room) -> Value {
    let results: Vec<Value> = options
        .iter()
        .map(|given| {
            let path = format!("{repository}/{}", given.file);
            let mut option = json!({
                "name": given.file,
                "sizeBytes": given.size,
                "fitEstimation": room.estimate(given.size),
                "downloadIdentifier": path,
                "indexedModelIdentifier": path,
                "compatibilityType": "gguf",
            });
            if let Some(quantization) = &given.quantization {
                option["quantization"] = quantization.as_str().into();
            }
            if given.recommended {
                option["recommended"] = true.into();
            }
            option
        })
        .collect();
    json!({"results": results})
}

/// Repository and file of a download identifier.
pub fn download_target(identifier: &str) -> Option<(&str, &str)> {
    let (owner, rest) = identifier.split_once('/')?;
    let (name, file) = rest.split_once('/')?;
    let known = !owner.is_empty() && !name.is_empty() && !file.is_empty();
    known.then(|| (&identifier[..owner.len() + 1 + name.len()], file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(download_target("a/b/c.gguf"), Some(("a/b", "c.gguf")));
        assert_eq!(download_target("a/b/q4/c.gguf"), Some(("a/b", "q4/c.gguf")));
        for bad in ["", "a", "a/b", "a//c", "/b/c", "a/b/"] {
            assert_eq!(download_target(bad), None, "{bad}");
        }
    }

    #[test]
    fn rooms() {
        let room = Room { gpu: 10, ram: 20 };
        for (size, word) in [(10, "fullGPUOffload"), (30, "partialGPUOffload"), (31, "willNotFit")] {
            assert_eq!(room.estimate(size), word);
        }
        let without = Room { gpu: 0, ram: 20 };
        assert_eq!(
            (without.estimate(20), without.estimate(21)),
            ("fitWithoutGPU", "willNotFit")
        );
    }
}
