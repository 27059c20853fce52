//! Lists, loads and what is told about models and instances (LM Studio contract 10.4).

use serde_json::{Value, json};

use super::{Client, prompt, query};
use crate::harness::with_stub;

#[tokio::test(flavor = "multi_thread")]
async fn lists_loads_and_what_is_told_about_them() {
    let (server, _record) = with_stub(&[]).await;
    let mut llm = Client::open(server.lmstudio, "/llm").await;
    let mut system = Client::open(server.lmstudio, "/system").await;
    let downloaded = system.call("listDownloadedModels", Value::Null).await.unwrap();
    let kinds: Vec<&str> = downloaded
        .as_array()
        .unwrap()
        .iter()
        .map(|info| info["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["llm", "embedding"],
        "models of other kinds are left out: {downloaded}"
    );
    // Among them one that hears: the libraries know no such kind, under no name.
    let hears = server.registry.catalog().listed().any(|entry| entry.is_speech());
    assert!(hears, "the fixtures have a speech model");
    let heard = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-whisper", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(
        heard.error.unwrap()["displayData"]["code"],
        "generic.noModelMatchingQuery"
    );
    assert_eq!(llm.call("listLoaded", Value::Null).await.unwrap(), json!([]));

    let loading = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-chat", "loadTtlMs": 60000, "loadConfigStack": {"layers": [
        {"layerName": "apiOverride", "config": {"fields": [
            {"key": "llm.load.contextLength", "value": 512}, {"key": "llm.load.numParallelSessions", "value": 1}]}}]}}),
        )
        .await;
    let kinds = loading.kinds();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("startLoading", "loadSuccess"));
    assert_eq!(loading.messages[0]["identifier"], "tiny-chat");
    let progress: Vec<f64> = loading
        .messages
        .iter()
        .filter_map(|message| message["progress"].as_f64())
        .collect();
    assert!(
        progress.windows(2).all(|pair| pair[0] <= pair[1]) && progress.last() == Some(&1.0),
        "{progress:?}"
    );
    let info = &loading.last()["info"];
    assert_eq!(
        (&info["identifier"], &info["contextLength"], &info["ttlMs"]),
        (&json!("tiny-chat"), &json!(512), &json!(60000))
    );
    let again = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "TINY-CHAT", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(again.kinds(), ["alreadyLoaded"]);
    assert_eq!(
        again.messages[0]["info"]["instanceReference"],
        info["instanceReference"]
    );

    let reference = json!({"type": "instanceReference", "instanceReference": info["instanceReference"]});
    for specifier in [
        query("tiny-chat"),
        reference.clone(),
        json!({"type": "query", "query": {}}),
    ] {
        let found = llm
            .call("getModelInfo", json!({"specifier": specifier, "throwIfNotFound": true}))
            .await
            .unwrap();
        assert_eq!(found["modelKey"], "tiny-chat");
    }
    let config = llm
        .call("getLoadConfig", json!({"specifier": reference}))
        .await
        .unwrap();
    assert!(
        config["fields"]
            .as_array()
            .unwrap()
            .contains(&json!({"key": "llm.load.contextLength", "value": 512}))
    );
    let state = llm
        .call(
            "getInstanceProcessingState",
            json!({"specifier": query("tiny-chat"), "throwIfNotFound": true}),
        )
        .await;
    assert_eq!(state.unwrap(), json!({"status": "idle", "queued": 0}));
    assert!(
        llm.call("getBasePredictionConfig", json!({"specifier": query("tiny-chat")}))
            .await
            .unwrap()["fields"]
            .is_array()
    );
    let usage = llm
        .call(
            "estimateModelUsage",
            json!({"modelKey": "tiny-chat", "loadConfigStack": {"layers": []}}),
        )
        .await
        .unwrap();
    assert!(
        usage["memory"]["totalBytes"].as_u64().unwrap() > 0 && usage["passesGuardrails"].is_boolean(),
        "{usage}"
    );

    // A second instance, under a number and under a name.
    let second = llm
        .channel(
            "loadModel",
            json!({"modelKey": "tiny-chat", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(
        (second.kinds()[0], &second.last()["info"]["identifier"]),
        ("resolved", &json!("tiny-chat:2"))
    );
    assert_eq!(second.last()["info"]["ttlMs"], Value::Null);
    let named = json!({"modelKey": "tiny-chat", "identifier": "mine", "loadConfigStack": {"layers": []}});
    assert_eq!(
        llm.channel("loadModel", named.clone()).await.last()["info"]["identifier"],
        "mine"
    );
    let taken = llm.channel("loadModel", named).await.error.unwrap();
    assert!(taken["title"].as_str().unwrap().contains("already exists"), "{taken}");
    assert_eq!(
        llm.call("listLoaded", Value::Null)
            .await
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        3
    );
    for identifier in ["mine", "tiny-chat:2"] {
        llm.call("unloadModel", json!({"identifier": identifier}))
            .await
            .unwrap();
    }

    // Nothing is loaded for a query, and every question about what is not there is answered at once.
    let mut embedding = Client::open(server.lmstudio, "/embedding").await;
    let not_there = [
        (
            "getModelInfo",
            json!({"specifier": query("nope"), "throwIfNotFound": true}),
        ),
        ("getLoadConfig", json!({"specifier": query("nope")})),
        (
            "tokenize",
            json!({"specifier": query("text-embedding-tiny-embed"), "inputString": "x"}),
        ),
        ("countTokens", json!({"specifier": query("nope"), "inputString": "x"})),
        (
            "embedString",
            json!({"modelSpecifier": query("tiny-embed"), "inputString": "x"}),
        ),
        ("unloadModel", json!({"identifier": "tiny-embed"})),
    ];
    for (endpoint, parameter) in not_there {
        let error = embedding.call(endpoint, parameter).await.unwrap_err();
        assert_eq!(
            error["displayData"]["code"], "generic.noModelMatchingQuery",
            "{endpoint}: {error}"
        );
        assert_eq!(error["displayData"]["totalLoadedModels"], 0);
    }
    let quiet = embedding
        .call(
            "getModelInfo",
            json!({"specifier": query("nope"), "throwIfNotFound": false}),
        )
        .await;
    assert_eq!(quiet.unwrap(), Value::Null);
    for endpoint in ["predict", "completeRawText"] {
        let mut parameter = prompt("nope", &json!([]));
        parameter["rawPrompt"] = "x".into();
        let error = llm.channel(endpoint, parameter).await.error.unwrap();
        assert_eq!(error["displayData"]["code"], "generic.noModelMatchingQuery");
    }
    for name in ["nope", "a/b"] {
        let error = llm
            .channel(
                "getOrLoad",
                json!({"identifier": name, "loadConfigStack": {"layers": []}}),
            )
            .await
            .error
            .unwrap();
        assert_eq!(error["displayData"]["code"], "generic.noModelMatchingQuery");
    }
    let error = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-embed", "loadConfigStack": {"layers": []}}),
        )
        .await
        .error
        .unwrap();
    assert_eq!(error["displayData"]["code"], "generic.domainMismatch");

    // A load just in time evicts the other one of that kind, and says so.
    let evicting = embedding
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-embed", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(evicting.kinds()[..2], ["unloadingOtherJITModel", "startLoading"]);
    assert_eq!(evicting.messages[0]["info"]["modelKey"], "tiny-chat");
    assert_eq!(evicting.last()["info"]["identifier"], "text-embedding-tiny-embed");
    let gone = llm
        .call("getModelInfo", json!({"specifier": reference, "throwIfNotFound": true}))
        .await
        .unwrap_err();
    assert_eq!(gone["displayData"]["code"], "generic.specificModelUnloaded");
    let vector = embedding
        .call(
            "embedString",
            json!({"modelSpecifier": query("tiny-embed"), "inputString": "cat"}),
        )
        .await
        .unwrap();
    assert!(!vector["embedding"].as_array().unwrap().is_empty());
    assert!(llm.warnings.is_empty() && embedding.warnings.is_empty() && system.warnings.is_empty());
    server.stop().await;
}
