//! `speak`: a text as sound, into a file, a pipe or the loudspeaker.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use http::Method;
use serde_json::{Value, json};

use crate::arguments::{Files, Sound, Speak};
use crate::client::{Answer, Client, segment};
use crate::failure::Failure;
use crate::output::Output;
use crate::{server, waiting};

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
        Ok(Self {
            options,
            output,
            text: text(options)?,
            goal,
            sound,
        })
    }

    async fn perform(&self, server: &Client) -> Result<ExitCode, Failure> {
        let bar = waiting::bar(self.output.json);
        waiting::shape(&bar, waiting::SPINNER);
        let mut body = json!({ "input": self.text, "voice": self.options.voice, "response_format": wire(self.sound) });
        if let Some(model) = &self.options.model {
            body["model"] = json!(model);
        }
        if let Some(speed) = self.options.speed {
            body["speed"] = json!(speed);
        }
        let asked = server.send(Method::POST, "/v1/audio/speech", Some(&body));
        let answer = match waiting::meanwhile(&bar, server, asked).await {
            Ok(answer) => answer.success().await,
            Err(error) => Err(error),
        };
        bar.finish_and_clear();
        let answer = answer?;
        match &self.goal {
            Goal::Stdout => {
                self.pour(answer, &mut std::io::stdout()).await?;
            }
            Goal::Loudspeaker => {
                let mut file = tempfile::Builder::new()
                    .prefix("llama-runner-")
                    .suffix(".wav")
                    .tempfile()?;
                self.pour(answer, file.as_file_mut()).await?;
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
                let written = self.pour(answer, &mut file).await.and_then(|bytes| {
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

    /// Writes the sound as it comes; returns how many bytes there were.
    async fn pour(&self, mut answer: Answer, out: &mut impl Write) -> Result<u64, Failure> {
        let mut bytes = 0;
        while let Some(piece) = answer.piece().await? {
            out.write_all(&piece)?;
            out.flush()?;
            bytes += piece.len() as u64;
        }
        if bytes == 0 {
            return Err(Failure::new("the server sent no sound"));
        }
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

/// A streamed WAV says that it has no end (0xFFFFFFFF, audio contract 4), which some players take for a damaged file. A
/// file's length is known: both sizes are put right.
fn end_of_wav(file: &mut std::fs::File) -> std::io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut head = [0; 44];
    file.rewind()?;
    file.read_exact(&mut head)?;
    if &head[..4] != b"RIFF" || &head[36..40] != b"data" {
        return Ok(());
    }
    for (at, size) in [(4, length - 8), (40, length - 44)] {
        if head[at..at + 4] == [0xFF; 4] {
            file.seek(SeekFrom::Start(at as u64))?;
            file.write_all(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes())?;
        }
    }
    Ok(())
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

    #[test]
    fn a_saved_wav_knows_its_length() {
        let mut file = tempfile::tempfile().unwrap();
        let endless = [
            b"RIFF\xff\xff\xff\xffWAVEfmt ".as_slice(),
            &[0; 20],
            b"data\xff\xff\xff\xff",
            &[1, 2, 3, 4],
        ]
        .concat();
        file.write_all(&endless).unwrap();
        end_of_wav(&mut file).unwrap();
        let mut fixed = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut fixed).unwrap();
        assert_eq!((&fixed[4..8], &fixed[40..44]), (&[40, 0, 0, 0][..], &[4, 0, 0, 0][..]));
        assert_eq!((&fixed[8..40], &fixed[44..]), (&endless[8..40], &endless[44..]));
    }
}
