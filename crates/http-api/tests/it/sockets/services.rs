//! The server, its logs, searches and downloads (LM Studio contract 10.8 to 10.11).

use serde_json::{Value, json};
use testkit::{FakeOrigin, HubRepo, OriginFault};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Client, prompt, tokens};
use crate::harness::{Server, Setup, until, with_stub};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_and_its_logs() {
    let (server, _record) = with_stub(&[]).await;
    let mut system = Client::open(server.lmstudio, "/system").await;
    let version = system.call("version", Value::Null).await.unwrap();
    assert!(
        version["version"].as_str().unwrap().starts_with("0.4.") && version["build"].is_u64(),
        "{version}"
    );
    assert_eq!(
        system.call("info", Value::Null).await.unwrap()["pid"],
        std::process::id()
    );
    assert_eq!(system.call("notify", json!({"title": "a"})).await.unwrap(), Value::Null);
    assert_eq!(system.call("getExperimentFlags", Value::Null).await.unwrap(), json!([]));
    let variants = system
        .call("listDownloadedModelVariants", json!({"modelKey": "tiny-chat"}))
        .await
        .unwrap();
    assert_eq!(variants.as_array().unwrap().len(), 1);
    for endpoint in ["requestShutdown", "startHttpServer", "stopHttpServer"] {
        let error = system.call(endpoint, json!({})).await.unwrap_err();
        assert!(error["title"].as_str().unwrap().contains("not supported"), "{error}");
    }
    let alive = system.begin("alive", Value::Null).await;
    let mut repository = Client::open(server.lmstudio, "/repository").await;
    assert_eq!(
        repository.call("isAuthenticated", Value::Null).await.unwrap(),
        json!({"authenticated": false})
    );
    for (path, endpoint) in [
        ("/runtime", "getEngineSelections"),
        ("/plugins", "setConfig"),
        ("/files", "retrieve"),
    ] {
        let mut client = Client::open(server.lmstudio, path).await;
        let error = client.call(endpoint, json!({})).await.unwrap_err();
        assert!(error["title"].as_str().unwrap().contains("not supported"), "{error}");
        assert!(client.warnings.is_empty(), "refused politely: {:?}", client.warnings);
    }

    let mut logs = Client::open(server.lmstudio, "/diagnostics").await;
    let id = logs.begin("streamLogs", Value::Null).await;
    // An answer means that the frame before it was read too.
    logs.say(&json!({"type": "keepAlive"})).await;
    assert_eq!(logs.hear_answer().await["type"], "keepAliveAck");
    let mut llm = Client::open(server.lmstudio, "/llm").await;
    llm.load("tiny-chat").await;
    llm.channel("predict", prompt("tiny-chat", &tokens(2))).await.last();
    let mut seen = Vec::new();
    while !seen.contains(&"llm.prediction.output".to_owned()) {
        let event = logs.message(id).await.unwrap();
        assert!(event["type"] == "log" && event["log"]["timestamp"].is_i64(), "{event}");
        let data = &event["log"]["data"];
        match data["type"].as_str().unwrap() {
            "llm.prediction.input" => assert_eq!(data["modelIdentifier"], "tiny-chat"),
            "llm.prediction.output" => assert_eq!(data["output"], " tok0 tok1"),
            "runtime.log" | "server.log" => {}
            other => panic!("{other}"),
        }
        seen.push(data["type"].as_str().unwrap().to_owned());
    }
    assert!(seen.contains(&"llm.prediction.input".to_owned()), "{seen:?}");
    // Libraries of the older generation know prompts alone.
    let (mut older, _) = Client::login(server.lmstudio, "/diagnostics", "no-guest", "x").await;
    let old_id = older.begin("streamLogs", Value::Null).await;
    older.say(&json!({"type": "keepAlive"})).await;
    assert_eq!(older.hear_answer().await["type"], "keepAliveAck");
    for _ in 0..2 {
        llm.channel("predict", prompt("tiny-chat", &tokens(2))).await.last();
        let event = older.message(old_id).await.unwrap();
        assert_eq!(event["log"]["data"]["type"], "llm.prediction.input", "{event}");
    }
    logs.say(&json!({"type": "channelSend", "channelId": id, "message": {"type": "stop"}}))
        .await;
    assert!(logs.finish(id).await.error.is_none());
    let _ = alive;
    // Sockets and endless channels do not keep the server from stopping.
    logs.begin("streamLogs", Value::Null).await;
    server.stop().await;
    assert_eq!(system.hear().await.unwrap_err(), Some(CloseCode::Away));
}

fn tiny(name: &str) -> Vec<u8> {
    std::fs::read(testkit::models_dir().join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_and_downloads() {
    let origin = FakeOrigin::start().await.unwrap();
    origin.add_hub_repo(
        "acme/Small-GGUF",
        HubRepo::new()
            .lfs("Small-Q4_K_M.gguf", tiny("tiny-chat.gguf"))
            .lfs("Small-F16.gguf", tiny("tiny-chat.gguf")),
    );
    let server = Server::start(Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    })
    .await;
    let mut client = Client::open(server.lmstudio, "/repository").await;
    let found = client
        .call("searchModels", json!({"opts": {"searchTerm": "small", "limit": 5}}))
        .await
        .unwrap();
    let identifier = json!({"type": "hf", "identifier": "acme/Small-GGUF"});
    assert_eq!(
        found["results"],
        json!([{"name": "acme/Small-GGUF", "identifier": identifier}])
    );
    let asked = json!({"modelSearchResultIdentifier": identifier});
    let options = client.call("getModelDownloadOptions", asked).await.unwrap()["results"].clone();
    assert_eq!(options.as_array().unwrap().len(), 2, "{options}");
    let best = options
        .as_array()
        .unwrap()
        .iter()
        .find(|option| option["recommended"] == true)
        .unwrap();
    assert_eq!(
        (&best["quantization"], &best["compatibilityType"]),
        (&json!("Q4_K_M"), &json!("gguf"))
    );
    assert!(
        best["sizeBytes"].is_u64() && best["fitEstimation"].is_string(),
        "{best}"
    );
    let missing = json!({"modelSearchResultIdentifier": {"type": "hf", "identifier": "acme/nothing"}});
    assert!(client.call("getModelDownloadOptions", missing).await.is_err());

    let target = json!({"downloadIdentifier": best["downloadIdentifier"]});
    let download = client.channel("downloadModel", target).await;
    assert_eq!(download.last()["type"], "success");
    for message in &download.messages[..download.messages.len() - 1] {
        let update = &message["update"];
        assert!(
            message["type"] == "startFinalizing" || update["downloadedBytes"].as_u64() <= update["totalBytes"].as_u64()
        );
    }
    // The library has it under this name already.
    assert_eq!(download.last()["defaultIdentifier"], "small");
    assert!(
        client
            .channel("downloadModel", json!({"downloadIdentifier": "acme/nothing/x.gguf"}))
            .await
            .error
            .is_some()
    );
    assert!(
        client
            .channel("downloadModel", json!({"downloadIdentifier": "nonsense"}))
            .await
            .error
            .is_some()
    );

    // A client's cancel ends the download.
    origin.add_hub_repo(
        "acme/Slow-GGUF",
        HubRepo::new().lfs("Slow-Q8_0.gguf", tiny("tiny-chat.gguf")),
    );
    origin.fault("Slow-Q8_0.gguf", OriginFault::Stall { after: 1000 });
    let id = client
        .begin(
            "downloadModel",
            json!({"downloadIdentifier": "acme/Slow-GGUF/Slow-Q8_0.gguf"}),
        )
        .await;
    until("the download to begin", || {
        origin
            .requests()
            .iter()
            .any(|request| request.path.ends_with("/Slow-Q8_0.gguf"))
    })
    .await;
    client.cancel(id).await;
    let error = client.finish(id).await.error.unwrap();
    assert!(error["title"].as_str().unwrap().contains("cancelled"), "{error}");
    server.stop().await;
}
