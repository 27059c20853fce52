//! What a terminal shows while the server is at work.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::client::Client;

/// How often the server is asked what it is doing.
const LOOK: Duration = Duration::from_millis(500);

/// A sign of life and a sentence.
pub(crate) const SPINNER: &str = "{spinner} {msg}";

/// A bar on stderr when that is a terminal and nobody asked for silence, else nothing.
pub(crate) fn bar(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Gives the bar another shape.
pub(crate) fn shape(bar: &ProgressBar, template: &str) {
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
}

/// Waits for the server's answer. Until it comes, the bar tells what it waits for: a download, a model that starts.
pub(crate) async fn meanwhile<T>(bar: &ProgressBar, server: &Client, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    if bar.is_hidden() {
        return answer.await;
    }
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::select! {
            answer = &mut answer => return answer,
            // A server that cannot tell is no reason to stop.
            state = server.get("/v1/state") => if let Ok(state) = state {
                // While something is sent, the bar shows that.
                if bar.length().is_none_or(|all| bar.position() >= all) {
                    shape(bar, SPINNER);
                    bar.set_message(doing(&state));
                }
            },
        }
    }
}

/// What keeps an answer from coming.
fn doing(state: &Value) -> Cow<'static, str> {
    let list = |key: &str| state[key].as_array().map_or(&[][..], Vec::as_slice);
    let percent = |part: f64| (part * 100.0).clamp(0.0, 100.0).round();
    let download = list("downloads").iter().find(|job| job["state"] == "downloading");
    if let Some(job) = download {
        let done = job["bytes_done"].as_f64().unwrap_or(0.0) / job["bytes_total"].as_f64().unwrap_or(f64::INFINITY);
        let name = job["name"].as_str().unwrap_or_default();
        return format!("downloading {name}: {} %", percent(done)).into();
    }
    let starting = list("models").iter().find(|model| model["state"] == "loading");
    if let Some(model) = starting {
        let name = model["key"].as_str().unwrap_or_default();
        let part = model["progress"].as_f64().unwrap_or(0.0);
        return format!("starting {name}: {} %", percent(part)).into();
    }
    let reading = list("transcriptions").iter().any(|one| one["state"] == "running");
    if reading {
        "reading the recording".into()
    } else {
        "waiting for the model".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_reason_for_waiting() {
        let job = json!({"state": "downloading", "name": "whisper-base", "bytes_done": 30, "bytes_total": 75});
        let unknown = json!({"state": "downloading", "name": "a", "bytes_done": 30, "bytes_total": null});
        let model = json!({"state": "loading", "key": "whisper-base", "progress": 0.25});
        for (state, sentence) in [
            (
                json!({"downloads": [job], "models": [model]}),
                "downloading whisper-base: 40 %",
            ),
            (json!({"downloads": [unknown], "models": []}), "downloading a: 0 %"),
            (
                json!({"downloads": [], "models": [model]}),
                "starting whisper-base: 25 %",
            ),
            (
                json!({"transcriptions": [{"state": "running"}]}),
                "reading the recording",
            ),
            (
                json!({"transcriptions": [{"state": "completed"}]}),
                "waiting for the model",
            ),
            (json!({}), "waiting for the model"),
        ] {
            assert_eq!(doing(&state), sentence);
        }
    }
}
