//! `engine voices`: which voices can be installed, under which licences, and installing them.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::arguments::{Files, InstallVoices, Target};
use crate::client::{Client, segment};
use crate::engine::Display;
use crate::failure::Failure;
use crate::output::{Output, size};
use crate::server;

/// How often the server is asked how far a download is.
const LOOK: Duration = Duration::from_millis(250);

/// The voice engines that can be installed, and how they stand.
pub(crate) fn list(files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let voices = app::voice_packs(&files.options())?;
    if output.json {
        output.document(&voices)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for voice in voices {
        let state = match (voice.files, voice.environment) {
            (true, true) => format!("installed ({})", size(voice.bytes)),
            (false, true) => "its program is installed, its voices are missing".into(),
            (true, false) => "its voices are here, its program is missing".into(),
            (false, false) => format!("not installed; about {} to download", size(voice.bytes)),
        };
        rows.push(vec![voice.name.to_owned(), state]);
        rows.push(vec![String::new(), voice.description.to_owned()]);
        rows.push(vec![String::new(), voice.licence.to_owned()]);
    }
    output.table(&["VOICES", ""], &rows)?;
    output.line("\nInstall with: llama-runner engine voices install kokoro")?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what would be installed, asks, and installs it.
pub(crate) async fn install(options: &InstallVoices, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let work = |server: Client| async move { install_with(&server, options, files, output).await };
    Box::pin(server::occasion(&Target::default(), files, work)).await
}

async fn install_with(
    server: &Client,
    options: &InstallVoices,
    files: &Files,
    output: Output,
) -> Result<ExitCode, Failure> {
    let pack = options.pack.key();
    let name = match &options.voice {
        Some(voice) => format!("{pack}/{voice}"),
        None => pack.to_owned(),
    };
    let offer = server.get(&format!("/v1/audio/packs?name={}", segment(&name))).await?;
    agree(&offer, options.yes)?;
    if offer["downloaded"] != true {
        download(server, &name, output).await?;
    }
    let python = environment(options, files, output).await?;
    if output.json {
        output.document(&json!({ "voices": name, "python": python }))?;
    } else {
        if python.is_none() {
            output.line(&format!(
                "The settings name a Python for speech, so no program was installed. It needs the package {}.",
                options.pack.package()
            ))?;
        }
        output.line(&format!(
            "The voices of {pack} are here. Try: llama-runner speak --model {pack} \"Hello\""
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows licence and size, and asks whether that is agreed to.
fn agree(offer: &Value, yes: bool) -> Result<(), Failure> {
    let text = |name: &str| offer[name].as_str().unwrap_or_default();
    let mut out = std::io::stderr().lock();
    writeln!(out, "{}: {}", text("display_name"), text("description"))?;
    writeln!(
        out,
        "From {}, {} to download.",
        text("repository"),
        size(offer["bytes"].as_u64().unwrap_or(0))
    )?;
    writeln!(out, "{}", text("licence"))?;
    if let Some(card) = offer["card"].as_str() {
        writeln!(out, "\nWhat the maker of the voice says:\n{card}\n")?;
    }
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "nobody can be asked here; agree to the licence with --yes",
        ));
    }
    write!(out, "Install it under these terms? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new("nothing was installed"))
    }
}

/// Has the server fetch the files, and follows it.
async fn download(server: &Client, name: &str, output: Output) -> Result<(), Failure> {
    let mut job = server.post("/v1/downloads", &json!({ "voices": name })).await?;
    let path = format!("/v1/downloads/{}", segment(job["id"].as_str().unwrap_or_default()));
    let display = Display::new(output.json);
    let ended = loop {
        let (done, total) = (
            job["bytes_done"].as_u64().unwrap_or(0),
            job["bytes_total"].as_u64().unwrap_or(0),
        );
        let fraction = done as f32 / total.max(1) as f32;
        let state = job["state"].as_str().unwrap_or_default();
        match state {
            "completed" => break Ok(()),
            "failed" | "cancelled" | "paused" => {
                let why = job["error"].as_str().unwrap_or("the download was stopped").to_owned();
                break Err(Failure::new(why));
            }
            _ => display.show(fraction, state, &format!("{name}: {} of {}", size(done), size(total))),
        }
        tokio::time::sleep(LOOK).await;
        job = match server.send(Method::GET, &path, None).await?.json().await {
            Ok(job) => job,
            Err(error) => break Err(error.into()),
        };
    };
    display.end();
    ended
}

/// Installs what the voices are spoken with. `None`: the settings name a Python, which is the user's own affair.
async fn environment(
    options: &InstallVoices,
    files: &Files,
    output: Output,
) -> Result<Option<std::path::PathBuf>, Failure> {
    let start = files.options();
    if app::engine_info(&start).await?.speech.named_by.is_some() {
        return Ok(None);
    }
    let (pack, quiet) = (options.pack, output.json);
    let installed = tokio::task::spawn_blocking(move || {
        let display = Display::new(quiet);
        let installed = app::install_voices(&start, pack, &|progress| {
            display.show(progress.fraction, &format!("{:?}", progress.step), &progress.message);
        });
        display.end();
        installed
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    installed.map(Some).map_err(|error| Failure::new(error.to_string()))
}
