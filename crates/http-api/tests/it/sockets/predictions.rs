//! Predictions and how they end (LM Studio contract 10.5, promises H1 and H3).

use serde_json::{Value, json};
use testkit::{Recorded, read_record};

use super::{Client, prompt, tokens};
use crate::harness::{until, with_stub};

#[tokio::test(flavor = "multi_thread")]
async fn predictions() {
    let (server, _record) = with_stub(&[]).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    client.load("tiny-chat").await;
    let whole = client.channel("predict", prompt("tiny-chat", &tokens(5))).await;
    assert_eq!(whole.text(), " tok0 tok1 tok2 tok3 tok4");
    let success = whole.last();
    assert_eq!(success["stats"]["stopReason"], "maxPredictedTokensReached", "{success}");
    assert_eq!(success["modelInfo"]["identifier"], "tiny-chat");
    assert!(success["loadModelConfig"]["fields"].is_array() && success["predictionConfig"]["fields"].is_array());

    // Five at once on one socket.
    let ids = [
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
    ];
    let mut closed = 0;
    while closed < ids.len() {
        let frame = client.hear_answer().await;
        assert!(
            ids.iter().any(|id| frame["channelId"] == *id) && frame["type"] != "channelError",
            "{frame}"
        );
        closed += usize::from(frame["type"] == "channelClose");
    }

    // Text completion: the old layer and the new endpoint send the same prompt.
    let mut old = prompt("tiny-chat", &tokens(2));
    old["predictionConfigStack"]["layers"].as_array_mut().unwrap().push(json!({
        "layerName": "completeModeFormatting",
        "config": {"fields": [{"key": "llm.prediction.promptTemplate", "value": {"type": "jinja", "stopStrings": []}}]},
    }));
    let old = client.channel("predict", old).await;
    let mut new = prompt("tiny-chat", &tokens(2));
    new["rawPrompt"] = "hi".into();
    let new = client.channel("completeRawText", new).await;
    assert_eq!(
        (old.text(), new.text()),
        (" tok0 tok1".to_owned(), " tok0 tok1".to_owned())
    );
    let config = old.last()["predictionConfig"].to_string();
    assert!(!config.contains("promptTemplate"), "{config}");

    let mut preset = prompt("tiny-chat", &json!([]));
    preset["fuzzyPresetIdentifier"] = "poet".into();
    let error = client.channel("predict", preset).await.error.unwrap();
    assert_eq!(error["displayData"]["code"], "generic.presetNotFound");

    // Files: an image for a model without vision, a text, an unknown one.
    let mut files = Client::open(server.lmstudio, "/files").await;
    let image = json!({"name": "a.png", "contentBase64": "iVBORw0KGgo="});
    let first = files.call("uploadFileBase64", image.clone()).await.unwrap();
    let second = files.call("uploadFileBase64", image).await.unwrap();
    assert_eq!((&first["fileType"], &first["sizeBytes"]), (&json!("image"), &json!(8)));
    assert_ne!(first["identifier"], second["identifier"]);
    assert!(
        files
            .call("uploadFileBase64", json!({"name": "x", "contentBase64": "%"}))
            .await
            .is_err()
    );
    let with_file = |identifier: &Value| {
        let mut asked = prompt("tiny-chat", &tokens(1));
        asked["history"]["messages"][0]["content"] =
            json!([{"type": "file", "name": "f", "identifier": identifier, "sizeBytes": 8, "fileType": "image"}]);
        asked
    };
    let text = files
        .call("uploadFileBase64", json!({"name": "a.txt", "contentBase64": "aGk="}))
        .await
        .unwrap();
    assert!(
        client
            .channel("predict", with_file(&first["identifier"]))
            .await
            .error
            .is_some()
    );
    assert!(
        client
            .channel("predict", with_file(&json!("unknown")))
            .await
            .error
            .is_some()
    );
    assert!(
        client
            .channel("predict", with_file(&text["identifier"]))
            .await
            .error
            .is_none()
    );
    assert!(client.warnings.is_empty());
    server.stop().await;
}

fn was_stopped(record: &std::path::Path) -> bool {
    read_record(record)
        .unwrap()
        .iter()
        .any(|event| matches!(event, Recorded::Gone { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_prediction_is_a_success_and_stops_the_engine() {
    let (server, record) = with_stub(&[("STUB_RATE", "50")]).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    client.load("tiny-chat").await;
    let id = client.begin("predict", prompt("tiny-chat", &tokens(100_000))).await;
    while client.message(id).await.unwrap()["type"] != "fragment" {}
    client.cancel(id).await;
    let rest = client.finish(id).await;
    assert_eq!(rest.last()["stats"]["stopReason"], "userStopped");
    assert!(rest.messages.len() < 10, "{}", rest.messages.len());
    until("the engine to stop", || was_stopped(&record)).await;
    until("the slot", || server.router.active_requests().is_empty()).await;
    // A cancel that comes too late is nothing.
    client.cancel(id).await;
    assert!(client.call("listLoaded", Value::Null).await.is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_closes_stops_its_predictions_and_loads() {
    let (server, record) = with_stub(&[("STUB_RATE", "50")]).await;
    let mut other = Client::open(server.lmstudio, "/llm").await;
    other.load("tiny-chat").await;
    for politely in [true, false] {
        let mut client = Client::open(server.lmstudio, "/llm").await;
        let id = client.begin("predict", prompt("tiny-chat", &tokens(100_000))).await;
        while client.message(id).await.unwrap()["type"] != "fragment" {}
        assert_eq!(server.router.active_requests().len(), 1);
        if politely {
            client.socket.close(None).await.unwrap();
        } else {
            drop(client);
        }
        until("the slot", || server.router.active_requests().is_empty()).await;
    }
    until("the engine to stop", || was_stopped(&record)).await;
    server.stop().await;

    let (server, _record) = with_stub(&[("STUB_LOAD_MS", "60000"), ("STUB_LOAD_STEPS", "600")]).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    let parameter = json!({"modelKey": "tiny-chat", "loadConfigStack": {"layers": []}});
    let id = client.begin("loadModel", parameter.clone()).await;
    assert_eq!(client.message(id).await.unwrap()["type"], "resolved");
    client.cancel(id).await;
    let error = client.finish(id).await.error.unwrap();
    assert!(error["title"].as_str().unwrap().contains("cancelled"), "{error}");
    until("the load to end", || server.router.instances().is_empty()).await;
    for endpoint in ["loadModel", "getOrLoad"] {
        let mut client = Client::open(server.lmstudio, "/llm").await;
        let mut parameter = parameter.clone();
        parameter["identifier"] = "tiny-chat".into();
        let id = client.begin(endpoint, parameter).await;
        client.message(id).await.unwrap();
        until("the load", || !server.router.instances().is_empty()).await;
        drop(client);
        until("the load to end", || server.router.instances().is_empty()).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_breaks_is_an_error_on_the_channel() {
    for variable in ["STUB_CUT_AFTER", "STUB_DIE_TOKENS"] {
        let value = if variable == "STUB_CUT_AFTER" {
            "3"
        } else {
            "3,signal:9"
        };
        let (server, _record) = with_stub(&[(variable, value)]).await;
        let mut client = Client::open(server.lmstudio, "/llm").await;
        client.load("tiny-chat").await;
        let broken = client.channel("predict", prompt("tiny-chat", &tokens(50))).await;
        assert!(
            broken.error.is_some() && !broken.kinds().contains(&"success"),
            "{variable}: {broken:?}"
        );
        assert!(!broken.text().is_empty());
        assert!(
            client.call("listLoaded", Value::Null).await.is_ok(),
            "the socket still serves"
        );
        server.stop().await;
    }
}
