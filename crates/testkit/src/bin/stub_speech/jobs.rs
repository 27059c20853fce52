//! Jobs: one at a time, first come first served; one whose client left never starts, or stops.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::death::die;
use crate::script::{Refusal, Script, usual, wait_for_file};
use crate::server::{Shared, Ticket};

/// Status and type of an answer that goes well, or the error.
pub(crate) type Head = Result<String, Refusal>;
/// A piece of an answer; `None` breaks the connection.
pub(crate) type Piece = Option<Bytes>;

/// Where a job's answer goes.
pub(crate) struct Answer {
    pub(crate) head: oneshot::Sender<Head>,
    pub(crate) out: mpsc::Sender<Piece>,
    pub(crate) ticket: Ticket,
}

/// Works on a job until it is done, its client leaves or the program ends.
pub(crate) async fn work(shared: Arc<Shared>, speaks: bool, asked: Value, answer: Answer) {
    let Answer { head, out, mut ticket } = answer;
    let listener = out.clone();
    let stopping = shared.stopping.clone();
    tokio::select! {
        biased;
        () = listener.closed() => {}
        () = stopping.cancelled() => {}
        () = async {
            let _turn = shared.turn.lock().await;
            if speaks {
                speak(&shared, &asked, head, &out, &mut ticket).await;
            } else {
                transcribe(&shared, &asked, head, &out, &mut ticket).await;
            }
        } => {}
    }
}

fn refusal(status: StatusCode, code: &str, message: impl Into<String>) -> Refusal {
    Refusal {
        status: status.as_u16(),
        code: code.to_owned(),
        message: message.into(),
    }
}

async fn transcribe(
    shared: &Shared,
    asked: &Value,
    head: oneshot::Sender<Head>,
    out: &mpsc::Sender<Piece>,
    ticket: &mut Ticket,
) {
    let recording = asked["path"].as_str().map(Path::new).map(std::fs::read);
    let script = match recording {
        Some(Ok(recording)) => Script::for_recording(shared.faults.script.as_deref(), &recording),
        _ => Err("the recording is not there".to_owned()),
    };
    let script = match script {
        Ok(script) => script,
        Err(why) => {
            let _ = head.send(Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", why)));
            return ticket.done();
        }
    };
    let Some(steps) = begin(shared, script, head, "application/x-ndjson".to_owned(), out, ticket).await else {
        return;
    };
    let steps = steps.unwrap_or_else(|| usual(asked));
    for step in steps {
        if let Some(event) = step["event"].as_str() {
            ticket.tokens += 1;
            // Who reads the last line may leave at once.
            if matches!(event, "done" | "error") {
                ticket.done();
            }
            let _ = out.send(Some(format!("{step}\n").into())).await;
        } else {
            deed(shared, &step, out, ticket).await;
        }
    }
    ticket.done();
}

/// The voices that the stub knows besides OpenAI's.
pub(crate) fn voices() -> Value {
    json!([
        {"id": "en-us", "name": "American English", "language": "en-us", "gender": "female"},
        {"id": "de", "name": "German", "language": "de", "gender": "male"},
    ])
}

const OPENAI_VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar",
];

fn content_type(format: &str) -> &'static str {
    match format {
        "opus" => "audio/ogg",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "wav" => "audio/wav",
        "pcm" => "audio/pcm",
        _ => "audio/mpeg",
    }
}

/// The sound is what was asked, as text: `format voice speed`, then each sentence, one line each.
async fn speak(
    shared: &Shared,
    asked: &Value,
    head: oneshot::Sender<Head>,
    out: &mpsc::Sender<Piece>,
    ticket: &mut Ticket,
) {
    let voice = asked["voice"].as_str().unwrap_or_default();
    let known = voices()
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["id"] == voice));
    let mut script = Script::for_speech(shared.faults.script.as_deref()).unwrap_or_default();
    if !known && !OPENAI_VOICES.contains(&voice) {
        script.error = script.error.or_else(|| {
            let what = format!("There is no voice '{voice}'. Some that there are: en-us, de.");
            Some(refusal(StatusCode::BAD_REQUEST, "voice_not_found", what))
        });
    }
    let format = asked["format"].as_str().unwrap_or("mp3");
    let Some(steps) = begin(shared, script, head, content_type(format).to_owned(), out, ticket).await else {
        return;
    };
    let steps = steps.unwrap_or_else(|| {
        let first = json!({"raw": format!("{format} {voice} {}\n", asked["speed"])});
        let sentences = asked["sentences"].as_array().cloned().unwrap_or_default();
        let said = sentences
            .iter()
            .map(|sentence| json!({"raw": format!("{}\n", sentence.as_str().unwrap_or_default())}));
        std::iter::once(first).chain(said).collect()
    });
    for step in steps {
        ticket.tokens += u64::from(step.get("raw").is_some());
        deed(shared, &step, out, ticket).await;
    }
    ticket.done();
}

/// What comes before the first line of an answer; `None`: there will be no such line.
async fn begin(
    shared: &Shared,
    script: Script,
    head: oneshot::Sender<Head>,
    content_type: String,
    out: &mpsc::Sender<Piece>,
    ticket: &mut Ticket,
) -> Option<Option<Vec<Value>>> {
    for step in &script.before {
        deed(shared, step, out, ticket).await;
    }
    if let Some(error) = script.error {
        let _ = head.send(Err(error));
        ticket.done();
        return None;
    }
    let _ = head.send(Ok(content_type));
    Some(script.steps)
}

async fn deed(shared: &Shared, step: &Value, out: &mpsc::Sender<Piece>, ticket: &Ticket) {
    if let Some(gate) = step["gate"].as_str() {
        wait_for_file(Path::new(gate)).await;
    } else if let Some(Ok(death)) = step["die"].as_str().map(str::parse) {
        // What was sent before is on its way before the process is gone.
        while out.capacity() < out.max_capacity() {
            tokio::task::yield_now().await;
        }
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        ticket.left();
        die(death);
    } else if step["hang"] == json!(true) {
        shared.hung.store(true, Ordering::SeqCst);
        let never: Infallible = std::future::pending().await;
        match never {}
    } else if step["cut"] == json!(true) {
        let _ = out.send(None).await;
    } else if let Some(text) = step["raw"].as_str() {
        let _ = out.send(Some(Bytes::copy_from_slice(text.as_bytes()))).await;
    }
}
