//! `doctor`.

use std::process::ExitCode;

use app::Outcome;

use crate::arguments::Files;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) async fn doctor(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let report = app::doctor(&files.options()).await;
    if output.json {
        output.document(&report)?;
    } else {
        let rows: Vec<Vec<String>> = report
            .checks
            .iter()
            .map(|check| {
                let outcome = match check.outcome {
                    Outcome::Ok => "ok",
                    Outcome::Note => "note",
                    Outcome::Problem => "PROBLEM",
                };
                vec![outcome.to_owned(), check.name.clone(), check.message.replace('\n', " ")]
            })
            .collect();
        output.table(&["", "CHECK", "RESULT"], &rows)?;
    }
    Ok(ExitCode::from(u8::from(!report.ok)))
}
