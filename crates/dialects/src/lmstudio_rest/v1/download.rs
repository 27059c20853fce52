use domain::{JobState, JobView, RunnerError};
use serde_json::{Value, json};

use crate::clock::rfc3339_millis;
use crate::json::to_vec;
use crate::lmstudio_rest::fields::Fields;

/// Addresses of the hub.
const HUBS: [&str; 4] = [
    "https://huggingface.co/",
    "http://huggingface.co/",
    "https://hf.co/",
    "http://hf.co/",
];

/// A download that would take longer says this: ten years.
const MAX_LEFT_MS: i64 = 10 * 365 * 86_400_000;

/// `POST /api/v1/models/download`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadCall {
    /// `owner/repo` on the hub.
    pub repo: String,
    /// A file of it, where the address named one, else the quantization asked for.
    pub file_or_quant: Option<String>,
}

impl DownloadCall {
    /// Reads the body.
    ///
    /// # Errors
    /// `InvalidRequest` with LM Studio's codes; unknown keys are refused.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body)?;
        let model = fields.required_string("model")?;
        let quantization = fields.string("quantization")?.filter(|text| !text.trim().is_empty());
        let name = model.trim();
        let address = HUBS.iter().find_map(|hub| name.strip_prefix(hub));
        if address.is_none() && quantization.is_some() {
            return Err(fields.invalid(
                "quantization",
                "is only for the address of a Hugging Face repository; 'model' is a catalogue key",
            ));
        }
        let path = address.unwrap_or(name);
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_matches('/');
        let mut parts = path.split('/');
        let (Some(owner), Some(repo)) = (parts.next(), parts.next()) else {
            return Err(fields.invalid(
                "model",
                "must be 'owner/name' or the address of a Hugging Face repository",
            ));
        };
        let named = |part: &str| !part.is_empty() && !part.contains([':', '\\']);
        if !named(owner) || !named(repo) {
            return Err(fields.invalid(
                "model",
                "must be 'owner/name' or the address of a Hugging Face repository",
            ));
        }
        // `/blob/main/file` and `/resolve/main/file` name one file, `/tree/main` the whole.
        let rest: Vec<&str> = parts.collect();
        let file = match rest.as_slice() {
            ["blob" | "resolve", _, file @ ..] if !file.is_empty() => Some(file.join("/")),
            [] | ["tree", ..] => None,
            _ => {
                return Err(fields.invalid(
                    "model",
                    "must be 'owner/name' or the address of a Hugging Face repository",
                ));
            }
        };
        let call = Self {
            repo: format!("{owner}/{repo}"),
            file_or_quant: file.or(quantization),
        };
        fields.finish()?;
        Ok(call)
    }
}

/// Times in LM Studio's form.
fn time(unix_ms: i64) -> Value {
    rfc3339_millis(unix_ms).into()
}

fn status(job: &JobView) -> &'static str {
    match job.state {
        JobState::Queued | JobState::Resolving | JobState::Downloading | JobState::Verifying => "downloading",
        JobState::Paused => "paused",
        JobState::Completed => "completed",
        JobState::Failed | JobState::Cancelled => "failed",
    }
}

/// The answer to the start of a download. `already`: everything was there.
pub fn download_started(job: &JobView, already: bool) -> Vec<u8> {
    if already {
        return to_vec(&json!({"status": "already_downloaded"}));
    }
    to_vec(&json!({
        "job_id": job.id,
        "status": status(job),
        "total_size_bytes": job.bytes_total,
        "started_at": time(job.started_ms),
    }))
}

/// How a download stands. `now_ms`: Unix milliseconds.
pub fn download_status(job: &JobView, now_ms: i64) -> Vec<u8> {
    to_vec(&value(job, now_ms))
}

/// All downloads, the latest first (*ext*).
pub fn downloads(jobs: &[JobView], now_ms: i64) -> Vec<u8> {
    let mut jobs: Vec<&JobView> = jobs.iter().collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.started_ms));
    let jobs: Vec<Value> = jobs.into_iter().map(|job| value(job, now_ms)).collect();
    to_vec(&json!({ "jobs": jobs }))
}

fn value(job: &JobView, now_ms: i64) -> Value {
    let status = status(job);
    let mut value = json!({
        "job_id": job.id,
        "model": job.name,
        "status": status,
        "total_size_bytes": job.bytes_total,
        "downloaded_bytes": job.bytes_done,
        "started_at": time(job.started_ms),
    });
    if status == "downloading" {
        value["bytes_per_second"] = job.bytes_per_second.into();
        let left = job.bytes_total.map(|total| total.saturating_sub(job.bytes_done));
        if let Some(left) = left
            && job.bytes_per_second > 0
        {
            let ms = left.saturating_mul(1000) / job.bytes_per_second;
            value["estimated_completion"] = time(now_ms + i64::try_from(ms).unwrap_or(i64::MAX).min(MAX_LEFT_MS));
        }
    }
    if let (JobState::Completed, Some(ended)) = (job.state, job.ended_ms) {
        value["completed_at"] = time(ended);
    }
    if let Some(error) = &job.error {
        value["error"] = error.as_str().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let parse = |model: &str| DownloadCall::parse(json!({ "model": model }).to_string().as_bytes());
        for (model, repo, file) in [
            ("ibm/granite-4-micro", "ibm/granite-4-micro", None),
            ("https://huggingface.co/a/b-GGUF", "a/b-GGUF", None),
            ("https://hf.co/a/b/tree/main?x=1", "a/b", None),
            (
                "https://huggingface.co/a/b/resolve/main/sub/f.gguf?download=true",
                "a/b",
                Some("sub/f.gguf"),
            ),
        ] {
            let call = parse(model).unwrap();
            assert_eq!(
                (call.repo.as_str(), call.file_or_quant.as_deref()),
                (repo, file),
                "{model}"
            );
        }
        for model in [
            "x",
            "https://example.com/a/b",
            "a/",
            "/",
            "a/b/c",
            "ftp://huggingface.co/a/b",
        ] {
            let error = parse(model).unwrap_err();
            assert_eq!(
                (error.code.as_deref(), error.param.as_deref()),
                (Some("invalid_value"), Some("model")),
                "{model}"
            );
        }
        let quantized = br#"{"model":"https://huggingface.co/a/b","quantization":"Q4_K_M"}"#;
        let quantized = DownloadCall::parse(quantized).unwrap();
        assert_eq!(quantized.file_or_quant.as_deref(), Some("Q4_K_M"));
        let keyed = DownloadCall::parse(br#"{"model":"a/b","quantization":"Q4_K_M"}"#).unwrap_err();
        assert_eq!(
            (keyed.code.as_deref(), keyed.param.as_deref()),
            (Some("invalid_value"), Some("quantization"))
        );
        let unknown = DownloadCall::parse(br#"{"model":"a/b","stop":1,"x":2}"#).unwrap_err();
        assert_eq!(unknown.message, "Unrecognized key(s) in object: 'stop', 'x'");
    }
}
