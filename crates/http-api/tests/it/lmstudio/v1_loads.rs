//! Loads and unloads of REST v1, probes and refusals (LM Studio contract 1.2, 7.1 to 7.4).

use domain::KeepAlive;
use serde_json::{Value, json};

use super::{ids, stub, with_stub};
use crate::harness::{Server, Setup, call, get, post, settings, until, with_engine};

#[tokio::test(flavor = "multi_thread")]
async fn loads_and_unloads() {
    let server = with_engine().await;
    let at = server.lmstudio;
    let load = |body: Value| async move { post(at, "/api/v1/models/load", &body).await };
    let model = json!({"model": "tiny-chat", "context_length": 1024, "echo_load_config": true});
    let first = load(model.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let first = first.json();
    assert_eq!(
        (
            &first["instance_id"],
            &first["status"],
            &first["load_config"]["context_length"]
        ),
        (&json!("tiny-chat"), &json!("loaded"), &json!(1024))
    );
    assert!(first["load_time_seconds"].as_f64().unwrap() > 0.0);
    // Loaded by name: it stays.
    assert_eq!(server.router.instances()[0].keep_alive, KeepAlive::Forever);
    let again = load(model).await.json();
    assert_eq!(
        (&again["instance_id"], &again["load_time_seconds"]),
        (&json!("tiny-chat"), &json!(0.0))
    );
    let other = load(json!({"model": "tiny-chat", "context_length": 512, "ttl": 60}))
        .await
        .json();
    assert_eq!(other["instance_id"], "tiny-chat:2", "{other}");
    assert_eq!(ids(&server), ["tiny-chat", "tiny-chat:2"]);
    let named = load(json!({"model": "tiny-chat", "identifier": "mine"})).await;
    assert_eq!(named.json()["instance_id"], "mine");
    for taken in ["mine", "tiny-chat", "tiny-embed"] {
        let refused = load(json!({"model": "tiny-chat", "identifier": taken})).await;
        assert_eq!(refused.status, 409, "{}", refused.text());
        let text = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(text.contains("already exists"), "{text}");
    }

    let models = get(at, "/api/v1/models").await.json();
    let chat = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["key"] == "tiny-chat")
        .unwrap();
    let shown: Vec<&str> = chat["loaded_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| instance["id"].as_str().unwrap())
        .collect();
    assert_eq!(shown, ["tiny-chat", "mine", "tiny-chat:2"]);
    let list = get(at, "/v1/models").await.json();
    let listed: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(listed[..3], ["mine", "tiny-chat", "tiny-chat:2"], "{listed:?}");
    // Every dialect knows the instance by its name.
    let question = json!({"model": "mine", "messages": [{"role": "user", "content": "x"}], "stream": false});
    assert_eq!(post(server.ollama, "/api/chat", &question).await.status, 200);
    assert_eq!(
        post(server.management, "/v1/chat/completions", &question).await.status,
        200
    );

    let unload = |id: &'static str| async move { post(at, "/api/v1/models/unload", &json!({"instance_id": id})).await };
    assert_eq!(unload("tiny-embed").await.status, 404);
    let gone = unload("mine").await;
    assert_eq!(
        (gone.status.as_u16(), gone.json()),
        (200, json!({"instance_id": "mine"}))
    );
    assert_eq!(
        post(server.ollama, "/api/chat", &question).await.status,
        404,
        "its name went with it"
    );
    assert_eq!(unload("tiny-chat").await.status, 200);
    // A request for the model goes to the instance that is there; what is said of the model stays the model's.
    let by_model = post(at, "/api/v1/chat", &json!({"model": "tiny-chat", "input": "ping"})).await;
    assert_eq!(
        by_model.json()["model_instance_id"],
        "tiny-chat:2",
        "{}",
        by_model.text()
    );
    assert_eq!(ids(&server), ["tiny-chat:2"]);
    let described = get(at, "/api/v0/models/tiny-chat").await.json();
    assert_eq!(
        (&described["id"], &described["state"]),
        (&json!("tiny-chat"), &json!("not-loaded"))
    );
    assert_eq!(get(at, "/api/v0/models/tiny-chat:2").await.json()["state"], "loaded");
    // A model's name stands for its only instance.
    assert_eq!(unload("tiny-chat").await.json(), json!({"instance_id": "tiny-chat:2"}));
    assert_eq!(unload("tiny-chat").await.json()["error"]["type"], "model_not_found");
    assert_eq!(ids(&server), [""; 0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_of_the_same_kind_at_once_are_one() {
    let server = with_stub(&[("STUB_LOAD_MS", "300")]).await;
    let body = json!({"model": "tiny-chat"});
    let load = || post(server.lmstudio, "/api/v1/models/load", &body);
    let (a, b, c) = tokio::join!(load(), load(), load());
    for reply in [a, b, c] {
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["instance_id"]),
            (200, &json!("tiny-chat"))
        );
    }
    assert_eq!(ids(&server), ["tiny-chat"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_loads_in_lm_studios_way() {
    let mut settings = settings();
    settings.lmstudio_port.api_load_duplicates = true;
    let server = Server::start(Setup {
        engine: stub(&[]),
        settings,
        ..Setup::default()
    })
    .await;
    for expected in ["text-embedding-tiny-embed", "text-embedding-tiny-embed:2"] {
        let reply = post(server.lmstudio, "/api/v1/models/load", &json!({"model": "tiny-embed"})).await;
        assert_eq!(reply.json()["instance_id"], expected, "{}", reply.text());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_is_forgotten() {
    let server = with_stub(&[]).await;
    for identifier in ["one", "two"] {
        let body = json!({"model": "tiny-chat", "identifier": identifier, "ttl": 1});
        assert_eq!(post(server.lmstudio, "/api/v1/models/load", &body).await.status, 200);
    }
    // Their time to live is over after a second.
    until("the end of both", || server.router.instances().is_empty()).await;
    let question = json!({"model": "one", "input": "x"});
    assert_eq!(post(server.ollama, "/v1/chat/completions", &question).await.status, 404);
    server.stop().await;

    let broken = with_stub(&[
        ("STUB_DIE_LOADING", "exit:1"),
        ("STUB_DIE_MESSAGE", "gguf_init_from_file: invalid magic"),
    ])
    .await;
    let reply = post(
        broken.lmstudio,
        "/api/v1/models/load",
        &json!({"model": "tiny-chat", "identifier": "x"}),
    )
    .await;
    let error = reply.json()["error"].clone();
    assert_eq!(
        (reply.status.as_u16(), &error["code"]),
        (500, &json!("model_load_failed")),
        "{error}"
    );
    assert!(error["message"].as_str().unwrap().contains("invalid magic"), "{error}");
    assert!(broken.router.resolve("x").is_none());
    let chat = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}]});
    for path in ["/v1/chat/completions", "/api/v0/chat/completions"] {
        let reply = post(broken.lmstudio, path, &chat).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (500, &json!("model_load_failed"))
        );
    }
    broken.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_settings_and_refusals() {
    let mut settings = settings();
    settings.lmstudio_port.jit = false;
    settings.lmstudio_port.reported_version = "0.5.0".into();
    let server = Server::start(Setup {
        engine: stub(&[]),
        settings,
        ..Setup::default()
    })
    .await;
    let at = server.lmstudio;
    assert_eq!(get(at, "/lmstudio-greeting").await.json(), json!({"lmstudio": true}));
    assert_eq!(
        get(at, "/lms-status").await.json(),
        json!({"package": "llamarunner", "version": "0.5.0"})
    );
    let off = post(
        at,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": "a", "stream": true}),
    )
    .await;
    assert_eq!(off.status, 404, "{}", off.text());
    assert_eq!(off.json()["error"]["type"], "model_not_found");
    let chat = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}]});
    for path in ["/v1/chat/completions", "/api/v0/chat/completions"] {
        let off = post(at, path, &chat).await;
        assert_eq!(off.status, 404, "{}", off.text());
        assert_eq!(off.json()["error"]["code"], Value::Null);
    }
    // All models, loaded or not, whatever the setting says.
    assert_eq!(
        get(at, "/api/v1/models").await.json()["models"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let unknown = post(at, "/api/v1/chat", &json!({"model": "x", "input": "a"})).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["type"]),
        (404, &json!("model_not_found"))
    );
    let strict = post(
        at,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": "a", "stop": "b"}),
    )
    .await;
    assert_eq!(strict.status, 400);
    assert_eq!(
        strict.json()["error"]["message"],
        "Unrecognized key(s) in object: 'stop'"
    );
    let image = json!([{"type": "image", "data_url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="}]);
    let blind = post(at, "/api/v1/chat", &json!({"model": "tiny-chat", "input": image})).await;
    assert_eq!(
        (blind.status.as_u16(), &blind.json()["error"]["code"]),
        (400, &json!("model_not_capable"))
    );
    let no_job = get(at, "/api/v1/models/download/status/job_0000000000").await;
    assert_eq!(
        (no_job.status.as_u16(), &no_job.json()["error"]["type"]),
        (404, &json!("job_not_found"))
    );
    assert_eq!(
        get(at, "/api/v1/models/download/status").await.json(),
        json!({"jobs": []})
    );
    let cancelled = call(at, "DELETE", "/api/v1/models/download/status/job_0000000000", &[], "").await;
    assert_eq!(cancelled.status, 404);
    server.stop().await;
}
