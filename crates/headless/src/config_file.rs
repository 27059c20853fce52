//! `config`: check, schema, path.

use std::process::ExitCode;

use app::StartError;
use app::settings_file::{ConfigError, json_schema_text};
use serde_json::{Value, json};

use crate::arguments::{ConfigAction, Files};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn config(action: ConfigAction, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    match action {
        ConfigAction::Schema => output.bytes(json_schema_text().as_bytes())?,
        ConfigAction::Path => {
            let path = files.options().places()?.config;
            if output.json {
                output.document(&json!({ "path": path, "exists": path.exists() }))?;
            } else {
                output.line(&path.display().to_string())?;
            }
        }
        ConfigAction::Check => return check(files, output),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let options = files.options();
    let path = options.places()?.config;
    if files.config.is_some() && !path.exists() {
        return Err(Failure::usage(format!("{} does not exist", path.display())));
    }
    match options.read_config() {
        Ok((_, parsed)) => {
            if output.json {
                output.document(&json!({ "path": path, "ok": true, "errors": [], "warnings": parsed.warnings }))?;
            } else {
                for warning in &parsed.warnings {
                    output.line(&format!("warning: {warning}"))?;
                }
                let state = if path.exists() {
                    "valid"
                } else {
                    "not there yet; the defaults apply"
                };
                output.line(&format!("{}: {state}", path.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if output.json => {
            let errors = errors(&error);
            output.document(&json!({ "path": path, "ok": false, "errors": errors, "warnings": [] }))?;
            Ok(ExitCode::from(error.exit_code()))
        }
        Err(error) => Err(error.into()),
    }
}

fn errors(error: &StartError) -> Vec<Value> {
    let StartError::Config(ConfigError::Invalid(problems)) = error else {
        return vec![json!({ "message": error.to_string() })];
    };
    problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.place.position.unzip();
            json!({
                "file": problem.place.file,
                "line": line,
                "column": column,
                "field": problem.place.field,
                "message": problem.message,
            })
        })
        .collect()
}
