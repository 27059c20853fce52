//! `logs`: of an engine through the server, of the server itself from its file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::arguments::{Files, Logs};
use crate::client::segment;
use crate::failure::Failure;
use crate::output::Output;
use crate::server;

/// How often the file is looked at while following it.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) async fn logs(options: &Logs, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    if output.json && options.follow {
        return Err(Failure::usage("--json prints one document and cannot follow"));
    }
    match &options.model {
        Some(model) => engine_log(options, model, files, output).await,
        None => app_log(options, files, output).await,
    }
}

async fn engine_log(options: &Logs, model: &str, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let server = server::connect(&options.target, files).await?;
    let path = format!(
        "/v1/models/{}/logs?lines={}&follow={}",
        segment(model),
        options.lines,
        options.follow
    );
    let mut answer = server.send(Method::GET, &path, None).await?.success().await?;
    let mut all = Vec::new();
    while let Some(piece) = answer.piece().await? {
        if output.json {
            all.extend_from_slice(&piece);
        } else {
            output.bytes(&piece)?;
        }
    }
    if output.json {
        document(&String::from_utf8_lossy(&all), output)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn app_log(options: &Logs, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    if options.target.host.is_some() || options.target.management_url.is_some() {
        return Err(Failure::usage(
            "name a MODEL; the server's own log is a file on its machine",
        ));
    }
    let path = files.options().places()?.logs().join("llama-runner.log");
    let (tail, mut at) = match tail(&path, options.lines) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.follow => (String::new(), 0),
        Err(error) => return Err(Failure::new(format!("{}: {error}", path.display()))),
    };
    if output.json {
        document(&tail, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    output.bytes(tail.as_bytes())?;
    if !options.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(mut file) = File::open(&path) else { continue };
        let length = file.metadata()?.len();
        if length < at {
            // Rotated: the new file is read from its beginning.
            at = 0;
        }
        if length > at {
            let mut new = Vec::new();
            file.seek(SeekFrom::Start(at))?;
            file.take(length - at).read_to_end(&mut new)?;
            at += new.len() as u64;
            output.bytes(&new)?;
        }
    }
}

fn document(text: &str, output: Output) -> io::Result<()> {
    output.document(&json!({ "lines": text.lines().collect::<Vec<_>>() }))
}

/// The last lines of a file, and its length.
fn tail(path: &Path, lines: usize) -> io::Result<(String, u64)> {
    // Longest line times a generous number of lines; a log may have 10 MiB.
    const MOST: u64 = 4 << 20;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    Ok((all[all.len().saturating_sub(lines)..].concat(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a\nb\nc\n").unwrap();
        assert_eq!(tail(file.path(), 2).unwrap(), ("b\nc\n".to_owned(), 6));
        assert_eq!(tail(file.path(), 9).unwrap().0, "a\nb\nc\n");
        assert_eq!(tail(file.path(), 0).unwrap().0, "");
    }
}
