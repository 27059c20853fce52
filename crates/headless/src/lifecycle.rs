//! Verbs that load and unload models.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{Output, duration};

/// `start`: asks for the load and follows it.
pub(crate) async fn start(server: &Client, name: &str, output: Output) -> Result<ExitCode, Failure> {
    // Events first: nothing that happens after the request is missed.
    let mut events = server.send(Method::GET, "/v1/events", None).await?.success().await?;
    let path = format!("/v1/models/{}", segment(name));
    let started = server.post(&format!("{path}/start"), &json!({})).await?;
    let bar = ProgressBar::new(100).with_message(format!("loading {name}"));
    bar.set_style(
        ProgressStyle::with_template("{msg} {wide_bar} {percent}%").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    if output.json {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    loop {
        let status = server.get(&format!("{path}/status")).await?;
        match status["status"].as_str() {
            Some("loaded") => {
                bar.finish_and_clear();
                return loaded(&status, &started, output);
            }
            Some("error") => {
                bar.finish_and_clear();
                let reason = status["error"].as_str().unwrap_or("the engine did not start");
                return Err(Failure::new(format!("{name} could not be loaded: {reason}")));
            }
            _ => {}
        }
        // The status is asked again after each event, and now and then in case one got lost.
        if let Ok(event) = tokio::time::timeout(Duration::from_secs(2), events.event()).await {
            let Some(event) = event? else {
                return Err(Failure::new("the server went away"));
            };
            if let Some(progress) = progress(&event, &status) {
                bar.set_position((progress * 100.0) as u64);
            }
        }
    }
}

fn progress(event: &str, status: &Value) -> Option<f64> {
    let event: Value = serde_json::from_str(event).ok()?;
    let instance = &event["instance"];
    (instance["model"] == status["id"])
        .then(|| instance["progress"].as_f64())
        .flatten()
}

fn loaded(status: &Value, started: &Value, output: Output) -> Result<ExitCode, Failure> {
    if output.json {
        output.document(status)?;
    } else {
        let id = status["id"].as_str().unwrap_or_default();
        let already = started["status"] == "loaded";
        let port = status["port"]
            .as_u64()
            .map_or_else(String::new, |port| format!(" (engine port {port})"));
        output.line(&format!(
            "{id} is {}loaded{port}",
            if already { "already " } else { "" }
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `stop`.
pub(crate) async fn stop(server: &Client, name: &str, force: bool, output: Output) -> Result<ExitCode, Failure> {
    let since = std::time::Instant::now();
    let stopped = server
        .post(
            &format!("/v1/models/{}/stop", segment(name)),
            &json!({ "force": force }),
        )
        .await?;
    if output.json {
        output.document(&stopped)?;
    } else {
        let took = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        output.line(&format!("{name} is unloaded ({})", duration(took)))?;
    }
    Ok(ExitCode::SUCCESS)
}
