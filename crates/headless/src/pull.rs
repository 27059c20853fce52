//! `pull`: a download with a bar per file.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use domain::KnownWhisper;
use domain::whisper::is_converted;
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::Pull;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::inventory::{HEARS, kind};
use crate::output::{Output, size};

/// Asks the server to download and follows it. Breaking it off keeps what has come; the same command goes on from there.
pub(crate) async fn pull(server: &Client, options: &Pull, output: Output) -> Result<ExitCode, Failure> {
    let name = &options.model;
    // Names of speech models may be names of a registry too: what is meant here is told by a name that only they have.
    let asked = match KnownWhisper::named(name) {
        Some(known) => known.key(),
        None if is_converted(name) => format!("hf.co/{name}"),
        None => name.clone(),
    };
    let body = json!({ "model": asked, "insecure": options.insecure });
    let mut answer = server
        .send(Method::POST, "/api/pull", Some(&body))
        .await?
        .success()
        .await?;
    let mut display = Display::new(output.json);
    loop {
        let line = tokio::select! {
            line = answer.line() => line?,
            _ = tokio::signal::ctrl_c() => {
                display.end();
                return Err(Failure::interrupted(format!(
                    "stopped; what has come is kept, `llama-runner pull {name}` goes on from there"
                )));
            }
        };
        let Some(line) = line else {
            display.end();
            return Err(Failure::new("the server ended the download without saying how it went"));
        };
        let status: Value = serde_json::from_str(&line).map_err(|error| {
            display.end();
            Failure::new(format!("the server's answer cannot be read: {error}"))
        })?;
        if let Some(error) = status["error"].as_str() {
            display.end();
            return Err(Failure::new(error));
        }
        if status["status"] == "success" {
            display.end();
            break;
        }
        display.show(&status);
    }
    if output.json {
        output.document(&json!({ "model": name, "status": "success" }))?;
    } else {
        // Told by what it can do: a name of the hub does not say.
        let info = server.get(&format!("/v1/models/{}/info", segment(&asked))).await;
        let hears = info.is_ok_and(|info| kind(&info["capabilities"]) == HEARS);
        output.line(&if hears {
            format!("{name} is here; `llama-runner transcribe --model {name} FILE` writes down what is said")
        } else {
            format!("{name} is here; `llama-runner run {name}` talks to it")
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bars on a terminal, a line per step and ten percent elsewhere; both on stderr.
struct Display {
    bars: Option<MultiProgress>,
    files: BTreeMap<String, ProgressBar>,
    /// The last line printed per file, and the last step.
    last: BTreeMap<String, String>,
    quiet: bool,
}

impl Display {
    fn new(quiet: bool) -> Self {
        Self {
            bars: (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new),
            files: BTreeMap::new(),
            last: BTreeMap::new(),
            quiet,
        }
    }

    fn show(&mut self, status: &Value) {
        let step = status["status"].as_str().unwrap_or_default();
        let file = status["digest"].as_str().unwrap_or_default();
        let (total, done) = (status["total"].as_u64(), status["completed"].as_u64().unwrap_or(0));
        match (&self.bars, total) {
            (Some(bars), Some(total)) => {
                let bar = self.files.entry(file.to_owned()).or_insert_with(|| {
                    let style = ProgressStyle::with_template(
                        "{msg} {wide_bar} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
                    );
                    bars.add(ProgressBar::new(total))
                        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                        .with_message(step.to_owned())
                });
                bar.set_length(total);
                bar.set_position(done);
            }
            (Some(bars), None) => {
                // Steps without bytes stay above the bars; a terminal that is gone is no reason to stop.
                let _ = bars.println(step);
            }
            (None, total) => {
                let line = match total {
                    Some(total) => format!("{step} {}% of {}", done * 10 / total.max(1) * 10, size(total)),
                    None => step.to_owned(),
                };
                if !self.quiet && self.last.get(file) != Some(&line) {
                    let _ = writeln!(std::io::stderr(), "{line}");
                    self.last.insert(file.to_owned(), line);
                }
            }
        }
    }

    fn end(&mut self) {
        for bar in self.files.values() {
            bar.finish_and_clear();
        }
    }
}
