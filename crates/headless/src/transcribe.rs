//! `transcribe`: recordings in, text and subtitles out.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::arguments::{Files, Transcribe, Transcript};
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::live::Live;
use crate::output::{Output, folder};
use crate::recording::Recording;
use crate::{server, waiting};

const SENDING: &str = "{spinner} sending {bytes} of {total_bytes}";
const LISTENING: &str = "{spinner} {wide_bar} {percent:>3}%  {msg}";
/// As soon as it is known how fast it goes.
const LISTENING_ON: &str = "{spinner} {wide_bar} {percent:>3}%  {msg}, {eta} left";

/// `transcribe FILE…`.
pub(crate) async fn transcribe(options: &Transcribe, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let job = Job::of(options, output)?;
    job.make_folder()?;
    server::occasion(&options.target, files, |server| async move { job.all(&server).await }).await
}

/// What is to be done, checked before anything is started.
struct Job<'a> {
    options: &'a Transcribe,
    output: Output,
    format: Transcript,
    recordings: Vec<Recording>,
}

impl<'a> Job<'a> {
    fn of(options: &'a Transcribe, output: Output) -> Result<Self, Failure> {
        let recordings: Vec<Recording> = options
            .files
            .iter()
            .map(|name| Recording::named(name))
            .collect::<Result<_, _>>()?;
        if recordings.iter().filter(|one| **one == Recording::Stdin).count() > 1 {
            return Err(Failure::usage("standard input can be read once only"));
        }
        let format = format(options, output)?;
        if options.stream && format == Transcript::VerboseJson {
            return Err(Failure::usage(
                "all that is known is known at the end only: leave out --stream, or take --format json",
            ));
        }
        if options.stream && output.json && format != Transcript::Json {
            return Err(Failure::usage(
                "--json with --stream prints lines of JSON; leave out --format or --json",
            ));
        }
        if options.words && format != Transcript::VerboseJson {
            return Err(Failure::usage("--words needs --format verbose_json"));
        }
        Ok(Self {
            options,
            output,
            format,
            recordings,
        })
    }

    /// Before anything is heard: a text that cannot be written, or is written over by the next one, is hours lost.
    fn make_folder(&self) -> Result<(), Failure> {
        let mut targets = HashSet::new();
        for recording in &self.recordings {
            if self.target(recording).is_some_and(|target| !targets.insert(target)) {
                let name = recording.name();
                return Err(Failure::usage(format!(
                    "two recordings are called {name}: give each a folder of its own by --output"
                )));
            }
        }
        match &self.options.output {
            Some(out) if is_folder(self.options, out) => folder(out),
            Some(out) => folder(out.parent().unwrap_or(Path::new(""))),
            None => Ok(()),
        }
    }

    /// Segments are printed as they come.
    fn is_live(&self) -> bool {
        self.options.stream && self.options.output.is_none()
    }

    /// One after the other; one that fails does not keep the others from being heard.
    async fn all(&self, server: &Client) -> Result<ExitCode, Failure> {
        let several = self.recordings.len() > 1;
        let mut documents = Vec::new();
        let mut code = ExitCode::SUCCESS;
        for recording in &self.recordings {
            // Lines of JSON name the recording themselves.
            let untitled = self.output.json || self.is_live() && self.format == Transcript::Json;
            if several && !untitled && self.options.output.is_none() {
                self.output.line(&format!("==> {} <==", recording.name()))?;
            }
            match self.one(server, recording).await {
                Ok(document) => documents.push(document),
                Err(failure) if several => code = failure.about(&recording.name()).report(),
                Err(failure) => return Err(failure),
            }
        }
        if self.output.json && !self.is_live() {
            self.output.document(&json!({ "transcriptions": documents }))?;
        }
        Ok(code)
    }

    async fn one(&self, server: &Client, recording: &Recording) -> Result<Value, Failure> {
        let bar = waiting::bar(self.output.json);
        let heard = self.hear(server, recording, &bar).await;
        bar.finish_and_clear();
        let mut document = heard?;
        if let Some(target) = self.target(recording) {
            std::fs::write(&target, self.written(&document))
                .map_err(|error| Failure::new(format!("{}: {error}", target.display())))?;
        } else if !self.output.json && !self.is_live() {
            self.output.bytes(self.written(&document).as_bytes())?;
        }
        if let Some(fields) = document.as_object_mut() {
            fields.insert("file".to_owned(), json!(recording.name()));
        }
        Ok(document)
    }

    /// Where the text of a recording goes; `None`: to standard output.
    fn target(&self, recording: &Recording) -> Option<PathBuf> {
        let out = self.options.output.as_ref()?;
        if !is_folder(self.options, out) {
            return Some(out.clone());
        }
        let twins = self.recordings.iter().filter(|other| stem(other) == stem(recording));
        let name = match recording {
            // `a.wav` and `a.mp3`: two texts.
            Recording::File(path) if twins.count() > 1 => path.file_name().unwrap_or_default().to_owned(),
            _ => stem(recording),
        };
        Some(out.join(name).with_added_extension(ending(self.format)))
    }

    /// The document as it is written.
    fn written(&self, document: &Value) -> String {
        let text = document["text"].as_str().unwrap_or_default();
        match self.format {
            Transcript::Text => format!("{}\n", text.trim_end()),
            Transcript::Srt | Transcript::Vtt => text.to_owned(),
            Transcript::Json | Transcript::VerboseJson => format!("{document:#}\n"),
        }
    }

    /// Sends the recording and reads the answer to its end.
    async fn hear(&self, server: &Client, recording: &Recording, bar: &ProgressBar) -> Result<Value, Failure> {
        let options = self.options;
        // Everything but the long document comes as events: they tell how far it is.
        let streamed = self.format != Transcript::VerboseJson;
        let mut fields = vec![("response_format", wire(self.format))];
        fields.extend(streamed.then_some(("stream", "true")));
        let named = [
            ("model", &options.model),
            ("language", &options.language),
            ("prompt", &options.prompt),
        ];
        fields.extend(
            named
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_deref()?))),
        );
        if options.words {
            fields.extend(["word", "segment"].map(|unit| ("timestamp_granularities[]", unit)));
        }
        let path = if options.translate {
            "/v1/audio/translations"
        } else {
            "/v1/audio/transcriptions"
        };
        let form = recording.form(&fields, bar).await?;
        let known = form.length.is_some();
        waiting::shape(bar, if known { SENDING } else { waiting::SPINNER });
        let answer = waiting::meanwhile(bar, server, server.send_content(Method::POST, path, Some(form)))
            .await?
            .success()
            .await?;
        waiting::shape(bar, LISTENING);
        bar.reset();
        bar.set_message("");
        if streamed {
            let live = self.is_live().then(|| Live::new(self.format, recording.name()));
            self.follow(answer, bar, live).await
        } else {
            Ok(answer.json().await?)
        }
    }

    /// Reads events until the text is whole.
    async fn follow(&self, mut answer: Answer, bar: &ProgressBar, mut live: Option<Live>) -> Result<Value, Failure> {
        if let Some(live) = &live {
            self.output.bytes(live.head().as_bytes())?;
        }
        while let Some(data) = answer.event().await? {
            let mut event: Value = serde_json::from_str(&data).unwrap_or_default();
            let error = &event["error"];
            if let Some(message) = error["message"].as_str().or_else(|| error.as_str()) {
                if let Some(live) = &live {
                    self.output.bytes(live.tail(false).as_bytes())?;
                }
                return Err(Failure::new(message));
            }
            match event["type"].as_str() {
                Some("transcript.text.delta") => {
                    if live.is_some() && std::io::stdout().is_terminal() {
                        // Words and bar would share the terminal's line.
                        bar.finish_and_clear();
                    } else {
                        show(bar, &event);
                    }
                    if let Some(live) = &mut live {
                        self.output.bytes(live.segment(&event).as_bytes())?;
                    }
                }
                Some("transcript.text.done") => {
                    if let Some(live) = &live {
                        self.output.bytes(live.tail(true).as_bytes())?;
                    }
                    if let Some(fields) = event.as_object_mut() {
                        fields.shift_remove("type");
                    }
                    return Ok(event);
                }
                _ => {}
            }
        }
        Err(Failure::new(
            "the transcription was cut short: the server closed the connection",
        ))
    }
}

/// Moves the bar to the end of the segment that was heard.
fn show(bar: &ProgressBar, delta: &Value) {
    let (Some(part), Some(end)) = (delta["progress"].as_f64(), delta["segment"]["end"].as_f64()) else {
        return;
    };
    waiting::shape(bar, LISTENING_ON);
    bar.set_length(1000);
    bar.set_position((part.clamp(0.0, 1.0) * 1000.0) as u64);
    bar.set_message(format!("heard {}", clock(end)));
}

/// Seconds as `m:ss`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The name of a recording without its ending.
fn stem(recording: &Recording) -> OsString {
    match recording {
        Recording::File(path) => path.file_stem().unwrap_or_default().to_owned(),
        Recording::Stdin => "stdin".into(),
    }
}

/// Whether texts go into `out` under names of their own.
fn is_folder(options: &Transcribe, out: &Path) -> bool {
    let text = out.as_os_str().to_string_lossy();
    options.files.len() > 1 || out.is_dir() || text.ends_with(std::path::is_separator)
}

/// As asked, else by the ending of the file to write, else what suits the output.
fn format(options: &Transcribe, output: Output) -> Result<Transcript, Failure> {
    if let Some(format) = options.format {
        return Ok(format);
    }
    if options.words {
        return Ok(Transcript::VerboseJson);
    }
    let ending = options
        .output
        .as_deref()
        .filter(|out| !is_folder(options, out))
        .and_then(Path::extension);
    match ending.map(|ending| ending.to_string_lossy().to_lowercase()).as_deref() {
        Some("srt") => Ok(Transcript::Srt),
        Some("vtt") => Ok(Transcript::Vtt),
        Some("json") => Ok(Transcript::Json),
        None if output.json => Ok(Transcript::Json),
        None | Some("txt" | "text" | "md") => Ok(Transcript::Text),
        Some(other) => Err(Failure::usage(format!(
            "what to write into a file ending in .{other}? Name it with --format text, json, srt, vtt or verbose_json"
        ))),
    }
}

/// The word of the API.
fn wire(format: Transcript) -> &'static str {
    match format {
        Transcript::Text => "text",
        Transcript::Json => "json",
        Transcript::Srt => "srt",
        Transcript::Vtt => "vtt",
        Transcript::VerboseJson => "verbose_json",
    }
}

fn ending(format: Transcript) -> &'static str {
    match format {
        Transcript::Text => "txt",
        Transcript::Json | Transcript::VerboseJson => "json",
        Transcript::Srt => "srt",
        Transcript::Vtt => "vtt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Verb};
    use clap::Parser;

    fn options(line: &str) -> Transcribe {
        match Arguments::try_parse_from(line.split_whitespace()).unwrap().verb {
            Verb::Transcribe(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_format_follows_the_file() {
        let of = |line: &str, json: bool| {
            format(
                &options(&format!("llama-runner transcribe a.mp3 {line}")),
                Output::new(json),
            )
        };
        for (line, json, wanted) in [
            ("", false, Transcript::Text),
            ("", true, Transcript::Json),
            ("-o x.SRT", false, Transcript::Srt),
            ("-o x.vtt", false, Transcript::Vtt),
            ("-o x.json", false, Transcript::Json),
            ("-o /tmp", false, Transcript::Text),
            ("-o x.srt --format text", false, Transcript::Text),
            ("--words", false, Transcript::VerboseJson),
            ("-f verbose_json", false, Transcript::VerboseJson),
            ("b.mp3 -o folder.d", false, Transcript::Text),
            ("-o folder.d/", false, Transcript::Text),
        ] {
            assert_eq!(of(line, json).unwrap(), wanted, "{line}");
        }
        assert!(of("-o x.doc", false).is_err());
    }

    #[test]
    fn wishes_that_exclude_each_other_are_refused() {
        let name = std::env::current_exe().unwrap();
        let of = |line: &str, json: bool| {
            let options = options(&format!("llama-runner transcribe {} {line}", name.display()));
            Job::of(&options, Output::new(json)).map(|_| ())
        };
        assert!(of("", false).is_ok() && of("-", false).is_ok());
        for (line, json) in [
            ("", false),
            ("-f srt", false),
            ("-f vtt", false),
            ("-f json", false),
            ("", true),
        ] {
            assert!(of(&format!("--stream {line}"), json).is_ok(), "{line}");
        }
        for (line, json) in [
            ("--stream -f verbose_json", false),
            ("--stream --words", false),
            ("--stream -f srt", true),
            ("--words -f srt", false),
            ("- -", false),
        ] {
            assert!(of(line, json).is_err(), "{line}");
        }
    }

    #[test]
    fn times() {
        for (seconds, text) in [(0.2, "0:00"), (61.6, "1:02"), (-1.0, "0:00")] {
            assert_eq!(clock(seconds), text);
        }
    }
}
