//! `transcribe` and `speak`, against the stub of the speech engine.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::kit::{Home, PATIENCE, json, models_dir, signal, stderr, stdout, wait};

const MODEL: &str = "tiny-whisper";
const TEXT: &str = "Hello, this is a test of the transcription service.";

/// A recording in the home; what the stub does with it is written in it.
fn recording(home: &Home, name: &str, script: &Value) -> String {
    let path = home.home.path().join(name);
    std::fs::write(&path, json!({ "stub": script }).to_string()).unwrap();
    path.display().to_string()
}

fn sound(home: &Home, name: &str) -> String {
    let path = home.home.path().join(name);
    std::fs::write(&path, b"RIFF some sound").unwrap();
    path.display().to_string()
}

fn refused(message: &str) -> Value {
    json!({ "error": { "status": 400, "code": "unsupported_audio", "message": message } })
}

#[test]
fn a_recording_becomes_text_in_every_form() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let file = sound(&home, "talk.wav");
    let heard = |arguments: &[&str]| {
        let output = server.verb(&[&["transcribe", &file, "--model", MODEL], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        output
    };
    assert_eq!(stdout(&heard(&[])), format!("{TEXT}\n"));
    assert_eq!(stdout(&heard(&["--stream"])), format!("{TEXT}\n"));
    assert!(
        stdout(&heard(&["--format", "srt"]))
            .starts_with("1\n00:00:00,000 --> 00:00:02,500\nHello, this is a test\n\n2\n")
    );
    assert!(stdout(&heard(&["-f", "vtt"])).starts_with("WEBVTT\n\n00:00:00.000 --> "));
    let plain = json(&heard(&["-f", "json"]));
    assert_eq!((&plain["text"], &plain["duration"]), (&json!(TEXT), &json!(5.2)));
    assert_eq!(plain["segments"][1]["text"], "of the transcription service.");
    let words = json(&heard(&["--words", "--language", "de"]));
    assert_eq!(
        (&words["language"], &words["words"][0]["word"]),
        (&json!("german"), &json!("Hello,"))
    );
    assert_eq!(words["segments"][0]["id"], 0);
    let document = json(&heard(&["--json"]));
    assert_eq!(document["transcriptions"][0]["file"], file);
    assert_eq!(document["transcriptions"][0]["text"], TEXT);
    assert_eq!(
        json(&heard(&["--translate", "--json"]))["transcriptions"][0]["language"],
        "en"
    );
}

#[test]
fn texts_are_written_to_files() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let (one, two) = (sound(&home, "one.wav"), sound(&home, "two.mp3"));
    let subtitles = home.home.path().join("x.srt");
    let single = server.verb(&["transcribe", &one, "-m", MODEL, "-o", &subtitles.display().to_string()]);
    assert_eq!(
        (single.status.code(), stdout(&single)),
        (Some(0), String::new()),
        "{}",
        stderr(&single)
    );
    assert!(
        std::fs::read_to_string(&subtitles)
            .unwrap()
            .starts_with("1\n00:00:00,000 --> ")
    );
    let folder = home.home.path().join("texts");
    std::fs::create_dir(&folder).unwrap();
    let both = server.verb(&[
        "transcribe",
        &one,
        &two,
        "-m",
        MODEL,
        "-o",
        &folder.display().to_string(),
    ]);
    assert_eq!(both.status.code(), Some(0), "{}", stderr(&both));
    for name in ["one.txt", "two.txt"] {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), format!("{TEXT}\n"));
    }
    let printed = server.verb(&["transcribe", &one, &two, "-m", MODEL]);
    assert_eq!(
        stdout(&printed),
        format!("==> {one} <==\n{TEXT}\n==> {two} <==\n{TEXT}\n")
    );
}

#[test]
fn pieces_are_printed_while_the_rest_is_still_heard() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let gate = home.home.path().join("go");
    let segment =
        |id: u32, text: &str| json!({ "event": "segment", "id": id, "start": id, "end": id + 1, "text": text });
    let file = recording(
        &home,
        "long.wav",
        &json!({ "steps": [
            { "event": "info", "duration": 2.0, "language": "en", "language_probability": 1.0 },
            segment(0, " First piece."), { "gate": gate }, segment(1, " Second piece."),
            { "event": "done", "processing_s": 0.1 },
        ] }),
    );
    let mut child = home
        .command(&["transcribe", &file, "-m", MODEL, "--stream"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 12];
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"First piece.");
    assert!(child.try_wait().unwrap().is_none(), "the gate is still closed");
    std::fs::write(&gate, "").unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), wait(&mut child)), (" Second piece.\n", Some(0)));
    drop(server);
}

#[test]
fn subtitles_are_printed_while_the_rest_is_still_heard() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let script = |gate: &PathBuf| {
        json!({ "steps": [
            { "event": "info", "duration": 3700.0, "language": "en", "language_probability": 1.0 },
            { "event": "segment", "id": 0, "start": 0.5, "end": 1.9996, "text": " First --> piece." }, { "gate": gate },
            { "event": "segment", "id": 1, "start": 2, "end": 3661.25, "text": " Second piece." },
            { "event": "done", "processing_s": 0.1 },
        ] })
    };
    for (format, first) in [
        ("srt", "1\n00:00:00,500 --> 00:00:02,000\nFirst -> piece.\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nFirst -> piece.\n\n"),
        (
            "json",
            "{\"file\":\"FILE\",\"id\":0,\"start\":0.5,\"end\":2.0,\"text\":\"First --> piece.\"}\n",
        ),
    ] {
        let gate = path(&home, &format!("go-{format}"));
        let file = recording(&home, &format!("{format}.wav"), &script(&gate));
        let first = first.replace("FILE", &file);
        let asked = ["transcribe", &file, "-m", MODEL, "--format", format];
        let mut child = home
            .command(&[&asked[..], &["--stream"]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut begin = vec![0; first.len()];
        // Pieces that are too short must fail the test, not block it.
        let (done, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = out.read_exact(&mut begin);
            let _ = done.send((begin, out));
        });
        let (begin, mut out) = read.recv_timeout(PATIENCE).unwrap();
        assert_eq!(String::from_utf8(begin).unwrap(), first);
        assert!(child.try_wait().unwrap().is_none(), "the gate is still closed");
        std::fs::write(&gate, "").unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(wait(&mut child), Some(0));
        if format == "json" {
            let second: Value = serde_json::from_str(&rest).unwrap();
            assert_eq!(
                (&second["id"], &second["end"], &second["text"]),
                (&json!(1), &json!(3661.25), &json!("Second piece."))
            );
        } else {
            // The pieces are the document that comes without --stream.
            assert_eq!(first + &rest, stdout(&server.verb(&asked)));
        }
    }
    let file = sound(&home, "talk.wav");
    // Lines of JSON name their recording; no heads between them.
    let lines = stdout(&server.verb(&["transcribe", &file, &file, "-m", MODEL, "--stream", "--json"]));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (lines.len(), &lines[3]["file"], &lines[3]["id"]),
        (4, &json!(file), &json!(1))
    );
    let refused = server.verb(&["transcribe", &file, "-m", MODEL, "--stream", "-f", "verbose_json"]);
    assert_eq!((refused.status.code(), stdout(&refused)), (Some(2), String::new()));
    assert!(stderr(&refused).contains("--format json"), "{}", stderr(&refused));
}

#[test]
fn a_missing_folder_is_made_before_anything_is_heard() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let (one, two) = (sound(&home, "one.wav"), sound(&home, "two.wav"));
    let folder = path(&home, "new/texts.d");
    let name = folder.display().to_string();
    let both = server.verb(&["transcribe", &one, &two, "-m", MODEL, "-o", &name, "-f", "vtt"]);
    assert_eq!(both.status.code(), Some(0), "{}", stderr(&both));
    for name in ["one.vtt", "two.vtt"] {
        assert!(
            std::fs::read_to_string(folder.join(name))
                .unwrap()
                .starts_with("WEBVTT\n")
        );
    }
    // Of one name but for the ending: neither text is lost.
    let other = sound(&home, "one.mp3");
    let twins = server.verb(&["transcribe", &one, &other, "-m", MODEL, "-o", &name]);
    assert_eq!(twins.status.code(), Some(0), "{}", stderr(&twins));
    assert!(folder.join("one.wav.txt").is_file() && folder.join("one.mp3.txt").is_file());
    let same = server.verb(&["transcribe", &one, &one, "-m", MODEL, "-o", &name]);
    assert_eq!(same.status.code(), Some(2), "{}", stderr(&same));
    let single = path(&home, "other/x.srt");
    let output = server.verb(&["transcribe", &one, "-m", MODEL, "-o", &single.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(single.is_file());
    // Where no folder can be made, nothing is heard: the recording would have failed with other words.
    let bad = recording(&home, "bad.wav", &refused("This is no sound file."));
    let output = server.verb(&["transcribe", &bad, &two, "-m", MODEL, "-o", &one]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("one.wav") && !said.contains("no sound file"), "{said}");
}

#[test]
fn a_recording_comes_through_a_pipe() {
    let home = Home::new();
    let _server = home.serve(&["--models-dir", &models_dir()]);
    let mut child = home
        .command(&["transcribe", "-", "-m", MODEL])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&vec![7; 300_000]).unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), format!("{TEXT}\n"));
}

#[test]
fn what_cannot_be_heard_is_said() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let good = sound(&home, "good.wav");
    let bad = recording(&home, "bad.wav", &refused("This is no sound file."));
    let one = server.verb(&["transcribe", &bad, "-m", MODEL]);
    assert_eq!((one.status.code(), stdout(&one)), (Some(1), String::new()));
    assert_eq!(stderr(&one), "llama-runner: This is no sound file.\n");
    // The others are heard all the same.
    let several = server.verb(&["transcribe", &bad, &good, "-m", MODEL, "--json"]);
    assert_eq!(several.status.code(), Some(1));
    assert_eq!(
        stderr(&several),
        format!("llama-runner: {bad}: This is no sound file.\n")
    );
    let documents = json(&several)["transcriptions"].as_array().unwrap().clone();
    assert_eq!((documents.len(), &documents[0]["text"]), (1, &json!(TEXT)));

    let broken = json!({ "steps": [
        { "event": "info", "duration": 9.0, "language": "en" },
        { "event": "error", "code": "engine_failed", "message": "The words ran out." },
    ] });
    let broken = server.verb(&["transcribe", &recording(&home, "broken.wav", &broken), "-m", MODEL]);
    assert_eq!(
        (broken.status.code(), stderr(&broken)),
        (Some(1), "llama-runner: The words ran out.\n".to_owned())
    );

    let unknown = server.verb(&["transcribe", &good, "-m", "none"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("none"), "{}", stderr(&unknown));
    let wrong = server.verb(&["transcribe", &good, "-m", "tiny-chat"]);
    assert!(stderr(&wrong).contains("speech"), "{}", stderr(&wrong));
    let missing = server.verb(&["transcribe", "/none.wav"]);
    assert!(stderr(&missing).contains("/none.wav"), "{}", stderr(&missing));
}

#[test]
fn ctrl_c_ends_the_job_in_the_server_too() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let file = recording(
        &home,
        "long.wav",
        &json!({ "steps": [
            { "event": "info", "duration": 9.0, "language": "en" },
            { "event": "segment", "id": 0, "start": 0, "end": 1, "text": " First." },
            { "gate": "/none" },
        ] }),
    );
    let mut child = home
        .command(&["transcribe", &file, "-m", MODEL, "--stream"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child), Some(130));
    server.until("the engine is free", |state| state["requests"] == json!([]));
}

#[test]
fn transcribe_starts_a_server_for_the_occasion() {
    let home = Home::new();
    home.write_config(
        &json!({ "models": { "dirs": [models_dir()] }, "audio": { "default_model": MODEL } }).to_string(),
    );
    let output = home.run(&["transcribe", &sound(&home, "talk.wav")]);
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(0), format!("{TEXT}\n")),
        "{}",
        stderr(&output)
    );
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.home.path().join(name)
}

#[test]
fn a_text_becomes_sound() {
    let home = Home::new();
    let server = home.serve(&[]);
    for (name, arguments, wanted) in [
        ("a.mp3", &[][..], "mp3 alloy 1.0\nHello there.\n"),
        (
            "b.ogg",
            &["--voice", "nova", "--speed", "1.5"],
            "opus nova 1.5\nHello there.\n",
        ),
        ("c.bin", &["--format", "flac"], "flac alloy 1.0\nHello there.\n"),
    ] {
        let file = path(&home, name);
        let output = server.verb(
            &[
                &["speak", "Hello", "there.", "-o", &file.display().to_string()],
                arguments,
            ]
            .concat(),
        );
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(0), String::new()),
            "{}",
            stderr(&output)
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
    }
    let file = path(&home, "d.aac").display().to_string();
    let told = json(&server.verb(&["speak", "Hi.", "-o", &file, "--json"]));
    assert_eq!((&told["file"], &told["format"]), (&json!(file), &json!("aac")));

    // Into a pipe, from a pipe.
    let mut child = home
        .command(&["speak", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"Here is the first sentence. And this is the second.\n")
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "wav alloy 1.0");
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(said, ["Here is the first sentence.", "And this is the second."]);
    assert_eq!(wait(&mut child), Some(0));
}

/// Runs `speak -` on a text that comes through a pipe.
fn speak_piped(home: &Home, text: &str, arguments: &[&str]) -> Output {
    let mut child = home
        .command(&[&["speak", "-"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// About 10,000 characters, wrapped: three requests. And its sentences.
fn long_text() -> (String, Vec<String>) {
    let sentences: Vec<String> = (100..340)
        .map(|n| format!("This is sentence number {n}\nof a long text."))
        .collect();
    let said = sentences.iter().map(|one| one.replace('\n', " ")).collect();
    (sentences.join(" "), said)
}

#[test]
fn a_long_text_is_spoken_in_parts() {
    let home = Home::new();
    let server = home.serve(&[]);
    let (text, said) = long_text();
    for (name, head) in [
        ("a.mp3", "mp3"),
        ("a.opus", "opus"),
        ("new/a.aac", "aac"),
        ("a.pcm", "pcm"),
    ] {
        let file = path(&home, name);
        let output = speak_piped(&home, &text, &["-o", &file.display().to_string()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let written = std::fs::read_to_string(&file).unwrap();
        let head = format!("{head} alloy 1.0");
        let (heads, lines): (Vec<&str>, Vec<&str>) = written.lines().partition(|line| *line == head);
        assert_eq!(heads.len(), 3, "{name}");
        assert_eq!(lines, said, "{name}: every sentence whole, once and in its place");
    }
    let flac = path(&home, "a.flac");
    let output = speak_piped(&home, &text, &["-o", &flac.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("take wav"), "{}", stderr(&output));
    // What the stub sends is no WAV: rather none than one that cannot be played.
    let wav = path(&home, "a.wav");
    let output = speak_piped(&home, &text, &["-o", &wav.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!flac.exists() && !wav.exists());
    drop(server);
}

#[test]
fn the_parts_of_a_long_text_are_one_wav() {
    let home = Home::new();
    let script = path(&home, "script.json");
    // Known lengths, as other engines send them, and a title behind the sound.
    let format = "WAVEfmt \x10\0\0\0\x01\0\x01\0\0\x5D\0\0\0\x3A\x01\0\x02\0\x10\0";
    let sent = format!("RIFF\x32\0\0\0{format}data\x04\0\0\0abcdLIST\x02\0\0\0xy");
    let (begin, rest) = sent.split_at(30);
    let steps = json!({ "speak": { "steps": [{ "raw": begin }, { "raw": rest }] } });
    std::fs::write(&script, steps.to_string()).unwrap();
    let entry = json!({ "env": { "STUB_SCRIPT": script } });
    home.write_config(&json!({ "models": { "entries": { "espeak-ng": entry } } }).to_string());
    let server = home.serve(&[]);
    let (text, _) = long_text();
    let file = path(&home, "a.wav");
    let output = speak_piped(&home, &text, &["-o", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let one = format!("RIFF\x30\0\0\0{format}data\x0C\0\0\0abcdabcdabcd");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), one);
    // A pipe cannot be mended at the end.
    let piped = speak_piped(&home, &text, &[]).stdout;
    assert_eq!((&piped[4..8], &piped[40..44]), (&[0xFF; 4][..], &[0xFF; 4][..]));
    assert_eq!(&piped[44..], b"abcdabcdabcd");
    drop(server);
}

#[test]
fn what_cannot_be_said_leaves_no_file() {
    let home = Home::new();
    let server = home.serve(&[]);
    let file = path(&home, "x.mp3");
    let name = file.display().to_string();
    let unknown = server.verb(&["speak", "Hi.", "--voice", "nobody", "-o", &name]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("nobody"), "{}", stderr(&unknown));
    for arguments in [
        &["speak", "Hi.", "-o", "x.txt"][..],
        &["speak", " ", "-o", &name],
        &["speak", "Hi.", "--json"],
    ] {
        let output = server.verb(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
    assert!(!file.exists());
}

#[test]
fn voices_are_listed() {
    let home = Home::new();
    let server = home.serve(&[]);
    let table = stdout(&server.verb(&["speak", "--voices"]));
    assert!(
        table.starts_with("VOICE") && table.contains("American English"),
        "{table}"
    );
    let list = json(&server.verb(&["speak", "--voices", "--json"]));
    assert_eq!(list["data"][0]["id"], "en-us", "{list}");
}
