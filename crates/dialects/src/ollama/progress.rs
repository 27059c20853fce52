//! Progress lines of pull, push and create (contract 3.6 to 3.8). Each is one JSON object; streams end with `success` or with
//! an error line.

use domain::{JobState, JobView};
use serde_json::{Value, json};

use crate::{json::to_vec, ndjson};

/// Appends `{"status":"…"}`.
pub fn status_line(status: &str, out: &mut Vec<u8>) {
    line(&json!({ "status": status }), out);
}

/// Appends the line of an error in mid-stream.
pub fn error_line(message: &str, out: &mut Vec<u8>) {
    ndjson::write_error(message, out);
}

/// The one object of `stream:false`.
pub fn success() -> Vec<u8> {
    to_vec(&json!({ "status": "success" }))
}

/// Appends the line of one transfer. `what`: `pulling` or `pushing`. A hash is told by its first twelve digits; a file
/// without one by its name.
pub fn transfer_line(what: &str, name: &str, sha256: Option<&str>, total: Option<u64>, done: u64, out: &mut Vec<u8>) {
    let short = sha256.and_then(|hex| hex.get(..12)).unwrap_or(name);
    let mut object = json!({ "status": format!("{what} {short}") });
    if let Some(hex) = sha256 {
        object["digest"] = format!("sha256:{hex}").into();
    }
    if let Some(total) = total {
        object["total"] = total.into();
    }
    if done > 0 {
        object["completed"] = done.into();
    }
    line(&object, out);
}

/// Appends the line of other work on a content, with how far it is.
pub fn work_line(status: &str, digest: &str, total: u64, done: u64, out: &mut Vec<u8>) {
    let mut object = json!({ "status": status, "digest": digest, "total": total });
    if done > 0 {
        object["completed"] = done.into();
    }
    line(&object, out);
}

fn line(object: &Value, out: &mut Vec<u8>) {
    out.extend(to_vec(object));
    out.push(b'\n');
}

/// Turns the states of a download into the lines of `/api/pull`.
#[derive(Debug, Default)]
pub struct PullLines {
    /// Bytes told of each file.
    told: Vec<Option<u64>>,
    verifying: bool,
}

impl PullLines {
    /// The line that goes out before the registry is asked.
    pub fn begin(&self, out: &mut Vec<u8>) {
        status_line("pulling manifest", out);
    }

    /// What is new since the last look. Nothing is written when nothing is.
    pub fn update(&mut self, job: &JobView, out: &mut Vec<u8>) {
        self.told.resize(job.files.len(), None);
        for (file, told) in job.files.iter().zip(&mut self.told) {
            // A file that has not begun is not spoken of before its turn.
            let waits = file.done == 0 && !matches!(job.state, JobState::Downloading);
            if *told != Some(file.done) && !waits {
                *told = Some(file.done);
                transfer_line("pulling", &file.name, file.sha256.as_deref(), file.size, file.done, out);
            }
        }
        if job.state == JobState::Verifying {
            self.verify(out);
        }
    }

    /// The last line again, for a download that stands still: clients give up on a silent stream.
    pub fn repeat(&self, job: &JobView, out: &mut Vec<u8>) {
        let going = |(file, _): &(&domain::JobFile, &Option<u64>)| file.size.is_none_or(|size| file.done < size);
        match job.files.iter().zip(&self.told).find(going) {
            Some((file, _)) => {
                transfer_line("pulling", &file.name, file.sha256.as_deref(), file.size, file.done, out);
            }
            None => status_line(
                if self.verifying {
                    "verifying sha256 digest"
                } else {
                    "pulling manifest"
                },
                out,
            ),
        }
    }

    /// The end of a download that worked.
    pub fn finish(&mut self, job: &JobView, out: &mut Vec<u8>) {
        self.told.resize(job.files.len(), None);
        for (file, told) in job.files.iter().zip(&self.told) {
            let size = file.size.unwrap_or(file.done);
            if *told != Some(size) {
                transfer_line("pulling", &file.name, file.sha256.as_deref(), Some(size), size, out);
            }
        }
        self.verify(out);
        status_line("writing manifest", out);
        status_line("success", out);
    }

    fn verify(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.verifying, true) {
            status_line("verifying sha256 digest", out);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{JobFile, JobId, JobKind};

    use super::*;

    fn job(state: JobState, done: [u64; 2]) -> JobView {
        let file = |name: &str, sha256: Option<String>, done| JobFile {
            name: name.into(),
            sha256,
            size: Some(100),
            done,
        };
        JobView {
            id: JobId("job_0123456789".into()),
            kind: JobKind::Registry,
            name: "x".into(),
            quantization: None,
            state,
            files: vec![
                file("layer", Some("8e".repeat(32)), done[0]),
                file("b-00001-of-00002.gguf", None, done[1]),
            ],
            bytes_done: done.iter().sum(),
            bytes_total: Some(200),
            bytes_per_second: 0,
            error: None,
            verified: true,
            model: None,
            started_ms: 0,
            ended_ms: None,
        }
    }

    #[test]
    fn a_download_in_lines() {
        let mut lines = PullLines::default();
        let mut out = Vec::new();
        lines.begin(&mut out);
        lines.update(&job(JobState::Resolving, [0, 0]), &mut out);
        lines.update(&job(JobState::Downloading, [0, 0]), &mut out);
        lines.update(&job(JobState::Downloading, [40, 0]), &mut out);
        lines.update(&job(JobState::Downloading, [40, 0]), &mut out);
        lines.repeat(&job(JobState::Downloading, [40, 0]), &mut out);
        lines.update(&job(JobState::Downloading, [100, 60]), &mut out);
        lines.update(&job(JobState::Verifying, [100, 100]), &mut out);
        lines.finish(&job(JobState::Completed, [100, 100]), &mut out);
        let layer = "8e".repeat(32);
        let text = String::from_utf8(out).unwrap();
        let expected = [
            r#"{"status":"pulling manifest"}"#.to_owned(),
            format!(r#"{{"status":"pulling 8e8e8e8e8e8e","digest":"sha256:{layer}","total":100}}"#),
            r#"{"status":"pulling b-00001-of-00002.gguf","total":100}"#.into(),
            format!(r#"{{"status":"pulling 8e8e8e8e8e8e","digest":"sha256:{layer}","total":100,"completed":40}}"#),
            format!(r#"{{"status":"pulling 8e8e8e8e8e8e","digest":"sha256:{layer}","total":100,"completed":40}}"#),
            format!(r#"{{"status":"pulling 8e8e8e8e8e8e","digest":"sha256:{layer}","total":100,"completed":100}}"#),
            r#"{"status":"pulling b-00001-of-00002.gguf","total":100,"completed":60}"#.into(),
            r#"{"status":"pulling b-00001-of-00002.gguf","total":100,"completed":100}"#.into(),
            r#"{"status":"verifying sha256 digest"}"#.into(),
            r#"{"status":"writing manifest"}"#.into(),
            r#"{"status":"success"}"#.into(),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_there_already_is_one_line_each() {
        let mut out = Vec::new();
        PullLines::default().finish(&job(JobState::Completed, [100, 100]), &mut out);
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 5);
    }
}
