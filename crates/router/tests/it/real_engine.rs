//! The same with a real llama-server; skipped with a note where none has been built.

use std::time::Duration;

use domain::{Capability, EngineMode, ErrorKind, LaunchOptions, ModelState};
use router::RouterSettings;
use serde_json::json;
use testkit::sse_events;

use crate::rig::{Rig, ask, drain, entry, next, post, send, until};

fn rig(settings: RouterSettings) -> Option<Rig> {
    let Some(engine) = testkit::real_engine_path() else {
        eprintln!("skipped: no llama-server; `cargo xtask test` builds one");
        return None;
    };
    Some(Rig::with_engine(settings, engine))
}

fn launch() -> LaunchOptions {
    LaunchOptions {
        context: Some(512),
        parallel: Some(2),
        ..LaunchOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_streams_and_stops() {
    let Some(rig) = rig(RouterSettings::default()) else {
        return;
    };
    let model = entry("tiny-chat", "tiny-chat.gguf", Capability::Chat, launch());
    let lease = rig.lease(&model).await.unwrap();
    assert_eq!((lease.launch().context, lease.launch().parallel), (512, 2));
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 40});
    let answer = send(&lease, post("/v1/chat/completions", &body)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = answer.into_body().collect_json(1 << 20).await.unwrap();
    let whole = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(!whole.is_empty());

    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let answer = send(&lease, post("/v1/chat/completions", &streamed)).await.unwrap();
    let (bytes, end) = drain(answer.into_body()).await;
    assert_eq!(end, Ok(()));
    let events = sse_events(&bytes);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let text: String = events
        .iter()
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok())
        .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(text, whole);

    // Leaving stops the generation: the next two fill both slots at once.
    let endless = json!({"prompt": "a", "n_predict": 100_000, "ignore_eos": true, "stream": true});
    let mut body = send(&lease, post("/completion", &endless)).await.unwrap().into_body();
    next(&mut body).await.unwrap().unwrap();
    drop(body);
    drop(lease);
    until("idle", || rig.view(&model).is_some_and(|view| view.active == 0)).await;
    assert!(rig.router.unload(&model.key, false).await);
    assert_eq!(rig.router.status(&model.key).0, ModelState::Unloaded);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embeddings_have_their_own_mode_and_swaps_wait_for_the_running_stream() {
    let Some(rig) = rig(RouterSettings {
        max_loaded_models: Some(1),
        ..RouterSettings::default()
    }) else {
        return;
    };
    let chat = entry("tiny-chat", "tiny-chat.gguf", Capability::Chat, launch());
    let embed = entry("tiny-embed", "tiny-embed.gguf", Capability::Embedding, launch());
    let lease = rig.lease(&chat).await.unwrap();
    let long = json!({"prompt": "a", "n_predict": 300, "ignore_eos": true, "stream": true});
    let stream = send(&lease, post("/completion", &long)).await.unwrap();
    drop(lease);
    let stream = tokio::spawn(drain(stream.into_body()));
    let mut request = ask(&embed);
    request.launch.mode = Some(EngineMode::Embedding);
    let lease = rig.router.lease(request).await.unwrap();
    let (_, end) = stream.await.unwrap();
    assert_eq!(end, Ok(()));
    let answer = send(&lease, post("/v1/embeddings", &json!({"input": "cat"})))
        .await
        .unwrap();
    let answer = answer.into_body().collect_json(1 << 20).await.unwrap();
    assert!(answer["data"][0]["embedding"].as_array().unwrap().len() > 8);
    drop(lease);
    // The swap itself, beyond the engine's own load.
    let lease = rig.lease(&chat).await.unwrap();
    println!(
        "swap: {:?} beyond the load of {:?}",
        lease.waited().saturating_sub(lease.load_time()),
        lease.load_time()
    );
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_model_names_the_reason_at_once() {
    let Some(rig) = rig(RouterSettings::default()) else {
        return;
    };
    let broken = rig.path("broken.gguf");
    std::fs::write(&broken, b"GGUF but not really").unwrap();
    let mut model = (*entry("broken", "tiny-chat.gguf", Capability::Chat, launch())).clone();
    model.path = broken;
    // One start, no retries: five of them would take half a minute.
    let model = model.shared();
    let answer = tokio::time::timeout(Duration::from_secs(20), rig.lease(&model)).await;
    let error = answer
        .expect("the same start is not tried again")
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    assert!(error.message.contains("damaged"), "{error}");
    assert!(!error.message.contains('/'), "no path in messages: {error}");
    rig.end().await;
}
