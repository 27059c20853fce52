//! Clients that leave and engines that die: nothing may be left, nothing may look whole that is not.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use router::RouterSettings;
use serde_json::{Value, json};
use testkit::Recorded;

use super::{
    Case, FORM, MODEL, TRANSCRIPTIONS, error_of, gate, half, open_gate, recording, scripted, send, transcribe,
};
use crate::harness::{drain, open, patiently, settings, until};

#[tokio::test]
async fn fifty_uploads_of_which_half_are_cut_leave_nothing() {
    let case = Case::new().await;
    let to = case.to();
    let mut all = tokio::task::JoinSet::new();
    for n in 0..50_usize {
        let stream = if n % 4 < 2 { "true" } else { "false" };
        let body = recording(&vec![b'x'; 300_000], &[MODEL, ("stream", stream)]);
        all.spawn(async move {
            if n % 2 == 0 {
                let reply = send(to, TRANSCRIPTIONS, body).await;
                assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
                return;
            }
            // Anywhere from the head of the first part to the last byte.
            let at = (n * 7919 * 131) % body.len();
            let head = format!("content-length: {}", body.len());
            drop(half(to, &head, &body[..at]).await);
        });
    }
    while let Some(ended) = patiently("an upload", all.join_next()).await {
        ended.unwrap();
    }
    case.stop().await;
}

#[tokio::test]
async fn clients_that_leave_while_queued_decoding_or_listening_free_everything() {
    let case = Case::new().await;
    let (decoded, middle) = (gate(&case, "decoded"), gate(&case, "middle"));
    let script = json!({"before": [{"gate": decoded}], "steps": [
        {"event": "info", "duration": 9.0, "language": "en"},
        {"event": "segment", "id": 0, "start": 0.0, "end": 2.0, "text": " One"},
        {"gate": middle},
    ]});
    let body = recording(&scripted(&script), &[MODEL, ("stream", "true")]);
    let head = format!("content-length: {}", body.len());
    // One is decoded, one waits for its turn.
    let decoding = half(case.to(), &head, &body).await;
    until("the engine has the first", || case.jobs().len() == 1).await;
    let queued = half(case.to(), &head, &body).await;
    until("both are here", || case.server.router.active_requests().len() == 2).await;
    let shown: Vec<Value> = case
        .shown()
        .await
        .into_iter()
        .map(|view| view["state"].clone())
        .collect();
    assert_eq!(shown, ["queued", "running"], "newest first");
    assert_eq!(case.uploads().len(), 2);
    drop(queued);
    until("the queued one is gone", || case.uploads().len() == 1).await;
    drop(decoding);
    case.is_clean().await;
    assert_eq!(case.jobs().len(), 1, "the engine never heard of the second");
    // One leaves in the middle of its events.
    open_gate(&decoded);
    let mut stream = open(case.to(), "POST", TRANSCRIPTIONS, &[FORM], body).await;
    let first = patiently("an event", stream.body_mut().frame()).await;
    assert!(String::from_utf8_lossy(first.unwrap().unwrap().data_ref().unwrap()).contains(" One"));
    drop(stream);
    case.is_clean().await;
    let states: Vec<Value> = case
        .shown()
        .await
        .into_iter()
        .map(|view| view["state"].clone())
        .collect();
    assert_eq!(states, ["cancelled", "cancelled", "cancelled"]);
    case.stop().await;
}

#[tokio::test]
async fn an_engine_that_dies_before_any_output_is_followed_by_another() {
    let case = Case::new().await;
    for (n, stream) in ["false", "true"].into_iter().enumerate() {
        let once = gate(&case, &format!("died-{n}"));
        let script = json!({"once": once, "steps": [{"event": "info", "duration": 5.2}, {"die": "signal:9"}]});
        let body = recording(&scripted(&script), &[MODEL, ("stream", stream)]);
        let reply = send(case.to(), TRANSCRIPTIONS, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert!(reply.text().contains("of the transcription service."));
        assert!(once.exists());
    }
    // A second death is the answer.
    let always = scripted(&json!({"before": [{"die": "exit:1"}]}));
    let reply = send(case.to(), TRANSCRIPTIONS, recording(&always, &[MODEL])).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (502, "engine_failed"),
        "{}",
        reply.text()
    );
    assert_eq!(case.jobs().len(), 6);
    case.stop().await;
}

#[tokio::test]
async fn an_engine_that_dies_after_output_ends_the_stream_with_an_error() {
    let case = Case::new().await;
    let sent = gate(&case, "sent");
    let script = json!({"steps": [
        {"event": "info", "duration": 9.0, "language": "en"},
        {"event": "segment", "id": 0, "start": 0.0, "end": 2.0, "text": " One"},
        {"gate": sent},
        {"die": "signal:9"},
    ]});
    let body = recording(&scripted(&script), &[MODEL, ("stream", "true")]);
    let mut stream = open(case.to(), "POST", TRANSCRIPTIONS, &[FORM], body).await;
    let first = patiently("an event", stream.body_mut().frame()).await;
    assert!(String::from_utf8_lossy(first.unwrap().unwrap().data_ref().unwrap()).contains(" One"));
    open_gate(&sent);
    let rest = String::from_utf8(drain(stream.into_body()).await).unwrap();
    assert!(
        rest.contains("\"code\":\"engine_failed\"") && !rest.contains("[DONE]"),
        "{rest}"
    );
    assert_eq!(case.jobs().len(), 1, "no second try");
    assert_eq!(case.shown().await[0]["state"], "failed");
    case.stop().await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_replaced_and_the_recording_heard() {
    let watching = RouterSettings {
        watchdog: Duration::from_millis(300),
        ..RouterSettings::default()
    };
    let case = Case::watched(settings(), watching, &[]).await;
    let script = json!({"once": gate(&case, "hung"), "steps": [{"event": "info", "duration": 5.2}, {"hang": true}]});
    let reply = send(case.to(), TRANSCRIPTIONS, recording(&scripted(&script), &[MODEL])).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(case.jobs().len(), 2);
    case.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_model_loads_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = folder.path().join("loaded");
    let case = Case::with(settings(), &[("STUB_LOAD_GATE", loaded.to_str().unwrap())]).await;
    let body = recording(b"RIFF", &[MODEL]);
    let client = half(case.to(), &format!("content-length: {}", body.len()), &body).await;
    let starts = || {
        case.recorded()
            .iter()
            .any(|event| matches!(event, Recorded::Bound { .. }))
    };
    until("the engine starts", starts).await;
    assert_eq!(case.uploads().len(), 1);
    drop(client);
    case.is_clean().await;
    assert_eq!(case.jobs().len(), 0);
    open_gate(&loaded);
    assert_eq!(transcribe(case.to(), &[]).await.status, StatusCode::OK);
    case.stop().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why() {
    let case = Case::with(settings(), &[("STUB_LOAD_FAILED", "There is no model.bin.")]).await;
    let reply = transcribe(case.to(), &[]).await;
    assert_eq!(error_of(&reply).0, 502, "{}", reply.text());
    assert!(reply.text().contains("model.bin"), "{}", reply.text());
    assert_eq!(case.shown().await[0]["state"], "failed");
    case.stop().await;
}
