//! Bytes, cancellation and connections.

use std::time::Duration;

use domain::ErrorKind;
use router::{Attached, RouterSettings};
use serde_json::json;
use testkit::{ProcessId, Recorded, monotonic_ns, sse_events, stub_marks};

use crate::rig::{Rig, chat, drain, next, send, until};

/// When the engine saw a client leave, in the order it noticed.
fn gone(rig: &Rig) -> Vec<u64> {
    let gone = rig.record("a").into_iter().filter_map(|record| match record {
        Recorded::Gone { at_ns, .. } => Some(at_ns),
        _ => None,
    });
    gone.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_once_however_it_was_cut() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let mut texts = Vec::new();
    for split in [None, Some(1), Some(7), Some(4096)] {
        let script = json!({"tokens": 200, "split": split, "text": "Grüße aus 東京 "});
        let response = send(&lease, chat(true, &script)).await.unwrap();
        assert_eq!(response.headers()["content-type"].as_bytes(), b"text/event-stream");
        let (bytes, end) = drain(response.into_body()).await;
        assert_eq!(end, Ok(()));
        let seqs: Vec<u64> = stub_marks(&bytes).iter().map(|mark| mark.seq).collect();
        assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
        let contents: String = sse_events(&bytes)
            .iter()
            .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok())
            .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
            .collect();
        texts.push(contents);
    }
    assert!(texts[0].contains("東京") && texts.iter().all(|text| *text == texts[0]));
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_ready_come_merged() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let mut body = send(&lease, chat(true, &json!({"tokens": 5000})))
        .await
        .unwrap()
        .into_body();
    let (mut frames, mut bytes) = (0, 0);
    while let Some(data) = next(&mut body).await {
        frames += 1;
        let data = data.unwrap();
        bytes += data.len();
        assert!(data.len() <= 64 * 1024);
        // The engine gets ahead.
        tokio::task::yield_now().await;
    }
    assert!(bytes > 500_000 && frames < 2500, "{frames} frames, {bytes} bytes");
    drop(body);
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_stops_the_engine() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    // In mid-stream.
    let lease = rig.lease(&model).await.unwrap();
    let mut body = send(&lease, chat(true, &json!({"tokens": 100_000, "rate": 100.0})))
        .await
        .unwrap()
        .into_body();
    drop(lease);
    next(&mut body).await.unwrap().unwrap();
    let left = monotonic_ns();
    drop(body);
    until("the engine saw it", || gone(&rig).len() == 1).await;
    assert!(gone(&rig)[0].saturating_sub(left) < 1_000_000_000);
    // While waiting for the head of an answer.
    let lease = rig.lease(&model).await.unwrap();
    {
        let mut sending = Box::pin(lease.send(chat(false, &json!({"tokens": 100_000, "rate": 100.0}))));
        let polled = tokio::time::timeout(Duration::from_millis(100), &mut sending).await;
        assert!(polled.is_err());
    }
    let left = monotonic_ns();
    until("the engine saw it", || gone(&rig).len() == 2).await;
    assert!(gone(&rig)[1].saturating_sub(left) < 1_000_000_000);
    drop(lease);
    until("the slot is free", || {
        rig.view(&model).is_some_and(|view| view.active == 0)
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cut_streams_leave_nothing() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    drop(rig.lease(&model).await.unwrap());
    let me = ProcessId::of(std::process::id()).unwrap();
    let before = me.open_fds().unwrap();
    let mut random: u32 = 12_345;
    for _ in 0..100 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let lease = rig.lease(&model).await.unwrap();
        let script = json!({"tokens": 100_000, "split": random % 97 + 1});
        let mut body = send(&lease, chat(true, &script)).await.unwrap().into_body();
        drop(lease);
        let mut left = (random >> 8) as usize % 9000;
        while left > 0 {
            let data = next(&mut body).await.unwrap().unwrap();
            left = left.saturating_sub(data.len());
        }
    }
    until("the engine saw all leave", || gone(&rig).len() == 100).await;
    until("nothing is left", || {
        let fds = me.open_fds().unwrap();
        rig.router.active_requests().is_empty() && rig.view(&model).is_some_and(|v| v.active == 0) && fds <= before + 4
    })
    .await;
    assert_eq!(rig.starts("a"), 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_the_engine_closes_are_no_error() {
    for fault in [("STUB_IDLE_MS", "20"), ("STUB_KEEPALIVE_MAX", "2")] {
        let rig = Rig::new(RouterSettings::default());
        let model = rig.model("a", &[fault]);
        let lease = rig.lease(&model).await.unwrap();
        for wait_ms in [0, 0, 0, 15, 18, 19, 20, 21, 22, 25, 40] {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            let response = send(&lease, chat(false, &json!({"tokens": 2}))).await.unwrap();
            response.into_body().collect_json(1 << 20).await.unwrap();
        }
        drop(lease);
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_is_bounded() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let response = send(&lease, chat(false, &json!({"tokens": 5000}))).await.unwrap();
    assert!(response.into_body().collect_bytes(1000).await.is_err());
    let response = send(&lease, chat(false, &json!({"tokens": 5000}))).await.unwrap();
    assert!(response.into_body().collect_json(1 << 20).await.is_ok());
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_file_that_cannot_be_read() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    std::fs::write(rig.path("short"), b"RIFF").unwrap();
    // One that is gone, one that is a folder, one that has lost its end.
    for path in [rig.path("gone"), rig.path(""), rig.path("short")] {
        let mut request = chat(false, &json!({"tokens": 1}));
        request.attached = Some(Attached {
            path,
            size: 100,
            after: "\r\n".into(),
        });
        let error = send(&lease, request).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Internal, "{}", error.message);
    }
    let answer = send(&lease, chat(false, &json!({"tokens": 1}))).await.unwrap();
    assert_eq!(answer.status(), 200);
    rig.end().await;
}
