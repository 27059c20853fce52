//! `speak`: a text as sound, into a file, a pipe or the loudspeaker.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use bytes::Bytes;
use http::Method;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::arguments::{Files, Sound, Speak};
use crate::client::{Answer, Client, segment};
use crate::failure::Failure;
use crate::output::{Output, folder};
use crate::passages::passages;
use crate::wav::{self, end_of_wav};
use crate::{server, waiting};

/// For a text of several parts.
const PARTS: &str = "{spinner} {wide_bar} {msg}";

/// Programs that play a WAV file, with what makes them quiet. The first that is found and works is used.
const PLAYERS: &[(&str, &[&str])] = &[
    ("paplay", &[]),
    ("aplay", &["-q"]),
    ("afplay", &[]),
    ("ffplay", &["-nodisp", "-autoexit", "-loglevel", "error"]),
];

/// `speak TEXT` or `speak --voices`.
pub(crate) async fn speak(options: &Speak, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    if options.voices {
        return server::occasion(&options.target, files, |server| async move {
            voices(&server, options, output).await
        })
        .await;
    }
    let job = Job::of(options, output)?;
    server::occasion(
        &options.target,
        files,
        |server| async move { job.perform(&server).await },
    )
    .await
}

/// Where the sound goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    File(PathBuf),
    Stdout,
    Loudspeaker,
}

struct Job<'a> {
    options: &'a Speak,
    output: Output,
    text: String,
    goal: Goal,
    sound: Sound,
}

impl<'a> Job<'a> {
    fn of(options: &'a Speak, output: Output) -> Result<Self, Failure> {
        let goal = match &options.output {
            Some(path) => Goal::File(path.clone()),
            None if output.json => return Err(Failure::usage("--json needs -o FILE")),
            None if !std::io::stdout().is_terminal() => Goal::Stdout,
            None if players(&path()).next().is_some() => Goal::Loudspeaker,
            None => {
                return Err(Failure::usage(
                    "no program that plays sound was found (aplay, paplay, afplay, ffplay); give -o FILE",
                ));
            }
        };
        let sound = sound(options, &goal)?;
        let text = text(options)?;
        if sound == Sound::Flac && passages(&text).len() > 1 {
            return Err(Failure::usage(
                "so long a text is spoken in parts, and parts of FLAC cannot be put together; take wav, mp3, opus, aac or pcm",
            ));
        }
        Ok(Self {
            options,
            output,
            text,
            goal,
            sound,
        })
    }

    async fn perform(&self, server: &Client) -> Result<ExitCode, Failure> {
        let bar = waiting::bar(self.output.json);
        waiting::shape(&bar, waiting::SPINNER);
        let parts = passages(&self.text);
        let Some((first, others)) = parts.split_first() else {
            return Err(Failure::usage("the text is empty"));
        };
        if let Goal::File(path) = &self.goal {
            folder(path.parent().unwrap_or(Path::new("")))?;
        }
        // Before a file is touched.
        let answer = self.ask(server, &bar, first).await?;
        if others.is_empty() {
            bar.finish_and_clear();
        } else {
            waiting::shape(&bar, PARTS);
            bar.set_length(parts.len() as u64);
        }
        let mut sound = Speech {
            job: self,
            server,
            bar,
            answer,
            others,
        };
        match &self.goal {
            Goal::Stdout => {
                sound.pour(&mut std::io::stdout()).await?;
            }
            Goal::Loudspeaker => {
                let mut file = tempfile::Builder::new()
                    .prefix("llama-runner-")
                    .suffix(".wav")
                    .tempfile()?;
                sound.pour(file.as_file_mut()).await?;
                end_of_wav(file.as_file_mut())?;
                play(file.path(), &path())?;
            }
            Goal::File(path) => {
                let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
                let mut file = std::fs::File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)
                    .map_err(named)?;
                let written = sound.pour(&mut file).await.and_then(|bytes| {
                    if self.sound == Sound::Wav {
                        end_of_wav(&mut file).map_err(named)?;
                    }
                    Ok(bytes)
                });
                if written.is_err() {
                    // Half a sentence is worse than none. The failure to tell is the first one.
                    let _ = std::fs::remove_file(path);
                }
                let bytes = written?;
                if self.output.json {
                    self.output
                        .document(&json!({ "file": path, "format": wire(self.sound), "bytes": bytes }))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks for a part of the text as sound.
    async fn ask(&self, server: &Client, bar: &ProgressBar, part: &str) -> Result<Answer, Failure> {
        let mut body = json!({ "input": part, "voice": self.options.voice, "response_format": wire(self.sound) });
        if let Some(model) = &self.options.model {
            body["model"] = json!(model);
        }
        if let Some(speed) = self.options.speed {
            body["speed"] = json!(speed);
        }
        let asked = server.send(Method::POST, "/v1/audio/speech", Some(&body));
        Ok(waiting::meanwhile(bar, server, asked).await?.success().await?)
    }
}

/// The sound of a text as it comes.
struct Speech<'a> {
    job: &'a Job<'a>,
    server: &'a Client,
    bar: ProgressBar,
    /// The sound of the part that is spoken, the first one to begin with.
    answer: Answer,
    /// The texts of the other parts.
    others: &'a [&'a str],
}

impl Speech<'_> {
    /// Writes all of it; returns how many bytes there were. The parts of the text follow each other without a seam: MP3
    /// and AAC are rows of frames, PCM of samples, an Ogg file may be a chain of several, and WAV gets one head for all.
    async fn pour(&mut self, out: &mut impl Write) -> Result<u64, Failure> {
        let join = self.job.sound == Sound::Wav && !self.others.is_empty();
        let mut joined = join.then(wav::Joined::default);
        let all = self.others.len() + 1;
        let mut bytes = 0;
        let later = self.others.iter().map(Some);
        for (number, part) in (1..).zip(std::iter::once(None).chain(later)) {
            self.bar.set_position(number - 1);
            self.bar.set_message(format!("part {number} of {all}"));
            if let Some(part) = part {
                self.answer = self.job.ask(self.server, &self.bar, part).await?;
            }
            let before = bytes;
            while let Some(mut piece) = self.answer.piece().await? {
                if let Some(joined) = &mut joined {
                    piece = Bytes::from(joined.push(&piece)?);
                }
                out.write_all(&piece)?;
                out.flush()?;
                bytes += piece.len() as u64;
            }
            if let Some(joined) = &mut joined {
                joined.end()?;
            }
            if bytes == before {
                return Err(Failure::new("the server sent no sound"));
            }
        }
        self.bar.finish_and_clear();
        Ok(bytes)
    }
}

/// What is to be said.
fn text(options: &Speak) -> Result<String, Failure> {
    let mut text = match options.text.as_slice() {
        [] if std::io::stdin().is_terminal() => {
            return Err(Failure::usage("say what? llama-runner speak TEXT -o FILE"));
        }
        [] => None,
        [one] if one == "-" => None,
        words => Some(words.join(" ")),
    };
    if text.is_none() {
        let mut piped = String::new();
        std::io::stdin().read_to_string(&mut piped)?;
        text = Some(piped);
    }
    let text = text.unwrap_or_default();
    if text.trim().is_empty() {
        return Err(Failure::usage("the text is empty"));
    }
    Ok(text.trim_end().to_owned())
}

/// As asked, else by the ending of the file, else WAV, which every player knows.
fn sound(options: &Speak, goal: &Goal) -> Result<Sound, Failure> {
    let asked = options.format;
    match goal {
        Goal::Loudspeaker if asked.is_some_and(|sound| sound != Sound::Wav) => {
            Err(Failure::usage("--format needs -o FILE or a pipe"))
        }
        Goal::Loudspeaker | Goal::Stdout => Ok(asked.unwrap_or(Sound::Wav)),
        Goal::File(path) => {
            if let Some(sound) = asked {
                return Ok(sound);
            }
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            match ending.as_str() {
                "mp3" => Ok(Sound::Mp3),
                "opus" | "ogg" => Ok(Sound::Opus),
                "aac" => Ok(Sound::Aac),
                "flac" => Ok(Sound::Flac),
                "wav" => Ok(Sound::Wav),
                "pcm" | "raw" => Ok(Sound::Pcm),
                _ => Err(Failure::usage(format!(
                    "{} does not tell which kind of sound to write: end it in .mp3, .opus, .aac, .flac, .wav or .pcm, or give --format",
                    path.display()
                ))),
            }
        }
    }
}

fn wire(sound: Sound) -> &'static str {
    match sound {
        Sound::Mp3 => "mp3",
        Sound::Opus => "opus",
        Sound::Aac => "aac",
        Sound::Flac => "flac",
        Sound::Wav => "wav",
        Sound::Pcm => "pcm",
    }
}

fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The programs that are there, with what makes them quiet.
fn players(path: &OsStr) -> impl Iterator<Item = (PathBuf, &'static [&'static str])> {
    let folders: Vec<PathBuf> = std::env::split_paths(path).collect();
    PLAYERS.iter().filter_map(move |(name, arguments)| {
        let mut programs = folders.iter().map(|folder| folder.join(name));
        Some((programs.find(|program| program.is_file())?, *arguments))
    })
}

fn play(file: &Path, path: &OsStr) -> Result<(), Failure> {
    for (player, arguments) in players(path) {
        let mut command = std::process::Command::new(player);
        command
            .args(arguments)
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        // One that finds no sound card says so by its exit status; the next one may know another way.
        if command.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    let names: Vec<String> = players(path).map(|(player, _)| player.display().to_string()).collect();
    Err(Failure::new(format!(
        "{} could not play the sound; give -o FILE to keep it",
        names.join(", ")
    )))
}

/// `speak --voices`.
async fn voices(server: &Client, options: &Speak, output: Output) -> Result<ExitCode, Failure> {
    let query = options
        .model
        .as_deref()
        .map(|model| format!("?model={}", segment(model)));
    let list = server
        .get(&format!("/v1/audio/voices{}", query.unwrap_or_default()))
        .await?;
    if output.json {
        output.document(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    let voices = list["data"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let rows: Vec<Vec<String>> = voices
        .iter()
        .map(|voice| {
            ["id", "name", "language", "gender", "model"]
                .map(|key| text(&voice[key]))
                .to_vec()
        })
        .collect();
    output.table(&["VOICE", "NAME", "LANGUAGE", "GENDER", "MODEL"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Verb};
    use clap::Parser;

    fn options(line: &str) -> Speak {
        match Arguments::try_parse_from(line.split_whitespace()).unwrap().verb {
            Verb::Speak(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_kind_of_sound_follows_the_file() {
        let of = |line: &str, goal: &Goal| sound(&options(&format!("llama-runner speak hi {line}")), goal);
        let file = |name: &str| Goal::File(name.into());
        for (line, goal, wanted) in [
            ("", file("x.mp3"), Sound::Mp3),
            ("", file("x.OGG"), Sound::Opus),
            ("", file("x.wav"), Sound::Wav),
            ("-f flac", file("x.wav"), Sound::Flac),
            ("", Goal::Stdout, Sound::Wav),
            ("-f mp3", Goal::Stdout, Sound::Mp3),
            ("", Goal::Loudspeaker, Sound::Wav),
        ] {
            assert_eq!(of(line, &goal).unwrap(), wanted, "{line} {goal:?}");
        }
        assert!(of("", &file("x.txt")).is_err() && of("", &file("x")).is_err());
        assert!(of("-f mp3", &Goal::Loudspeaker).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_next_player_is_tried_when_one_cannot() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let sound = folder.path().join("x.wav");
        let played = folder.path().join("played");
        let player = |name: &str, script: &str| {
            let program = folder.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let path = folder.path().as_os_str();
        assert_eq!(players(path).count(), 0);
        player("paplay", "exit 1");
        let failure = format!("{:?}", play(&sound, path).unwrap_err());
        assert!(failure.contains("paplay could not play the sound"), "{failure}");
        player("aplay", &format!("echo \"$@\" > {}", played.display()));
        play(&sound, path).unwrap();
        let arguments = std::fs::read_to_string(&played).unwrap();
        assert_eq!(arguments, format!("-q {}\n", sound.display()));
    }
}
