//! Verbs that change which models are stored: `rm` and `cp`.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// `rm`: all that can be deleted are, also when one cannot.
pub(crate) async fn rm(server: &Client, models: &[String], output: Output) -> Result<ExitCode, Failure> {
    let mut deleted = Vec::new();
    let mut problems = Vec::new();
    for model in models {
        let body = json!({ "model": model });
        let answer = match server.send(Method::DELETE, "/api/delete", Some(&body)).await {
            Ok(answer) => answer.success().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) if output.json => deleted.push(model),
            Ok(_) => output.line(&format!("deleted {model}"))?,
            Err(error) => problems.push(format!("{model}: {error:#}")),
        }
    }
    if output.json {
        output.document(&json!({ "deleted": deleted, "errors": problems }))?;
    }
    if problems.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(problems.join("\n")))
    }
}

/// `cp`.
pub(crate) async fn cp(server: &Client, source: &str, destination: &str, output: Output) -> Result<ExitCode, Failure> {
    let body = json!({ "source": source, "destination": destination });
    let asked = server.send(Method::POST, "/api/copy", Some(&body)).await?;
    asked.success().await?;
    if output.json {
        output.document(&body)?;
    } else {
        output.line(&format!("{destination} is {source}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
