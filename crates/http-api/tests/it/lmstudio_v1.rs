//! LM Studio's native REST API on real listeners.

use domain::{KeepAlive, ModelState};
use serde_json::{Value, json};

use crate::harness::{Engine, Reply, Server, Setup, call, get, open, post, settings, until, with_engine};

fn stub(env: &[(&'static str, &str)]) -> Engine {
    Engine::Stub(env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

async fn with_stub(env: &[(&'static str, &str)]) -> Server {
    Server::start(Setup {
        engine: stub(env),
        ..Setup::default()
    })
    .await
}

fn ids(server: &Server) -> Vec<String> {
    let mut ids: Vec<String> = server.router.instances().iter().map(|i| i.model.to_string()).collect();
    ids.sort();
    ids
}

/// Name and data of every event.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    let text = reply.text();
    text.split("\n\n")
        .filter(|frame| !frame.is_empty() && !frame.starts_with(':'))
        .map(|frame| {
            let (name, data) = frame.split_once('\n').expect("two lines");
            let data = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            (name.strip_prefix("event: ").expect("a name").to_owned(), data)
        })
        .collect()
}

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
async fn a_conversation_is_kept_and_branches() {
    let server = with_engine().await;
    let at = server.lmstudio;
    let ask = |input: &'static str, previous: Option<String>, store: bool| async move {
        let body = json!({"model": "tiny-chat", "input": input, "temperature": 0, "previous_response_id": previous,
            "store": store});
        let reply = post(at, "/api/v1/chat", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let id = |result: &Value| result["response_id"].as_str().map(str::to_owned);
    let first = ask("ping", None, true).await;
    assert_eq!(
        first["output"],
        json!([{"type": "message", "content": "pong"}]),
        "{first}"
    );
    assert_eq!(first["model_instance_id"], "tiny-chat");
    let stats = &first["stats"];
    assert!(stats["model_load_time_seconds"].as_f64().unwrap() > 0.0, "{stats}");
    assert!(stats["input_tokens"].as_u64().unwrap() > 0 && stats["total_output_tokens"].as_u64().unwrap() > 0);
    let first_id = id(&first).unwrap();
    assert!(first_id.len() == 53 && first_id.starts_with("resp_"), "{first_id}");
    // The second turn's prompt holds the first; a branch from the first does not hold the second.
    let second = ask("ping", Some(first_id.clone()), true).await;
    assert!(second["stats"].get("model_load_time_seconds").is_none());
    let third = ask("ping", id(&second), true).await;
    let branch = ask("ping", Some(first_id.clone()), true).await;
    let tokens = |result: &Value| result["stats"]["input_tokens"].as_u64().unwrap();
    assert!(tokens(&first) < tokens(&second) && tokens(&second) < tokens(&third));
    assert_eq!(tokens(&second), tokens(&branch));
    let forgotten = ask("ping", Some(first_id), false).await;
    assert!(id(&forgotten).is_none(), "{forgotten}");
    let unknown = post(
        at,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": "a", "previous_response_id": "resp_0"}),
    )
    .await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (400, &json!("previous_response_not_found"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_start_to_end() {
    let server = with_engine().await;
    let body =
        json!({"model": "tiny-chat", "input": [{"type": "text", "content": "ping"}], "temperature": 0, "stream": true});
    let first = post(server.lmstudio, "/api/v1/chat", &body).await;
    assert!(first.header("content-type").starts_with("text/event-stream"));
    let told = events(&first);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["chat.start", "model_load.start"], "{names:?}");
    let place = |name: &str| {
        names
            .iter()
            .position(|n| *n == name)
            .unwrap_or_else(|| panic!("{name} in {names:?}"))
    };
    let order = [
        "model_load.end",
        "prompt_processing.start",
        "prompt_processing.end",
        "message.start",
        "message.delta",
        "message.end",
        "chat.end",
    ];
    assert!(
        order.windows(2).all(|pair| place(pair[0]) < place(pair[1])),
        "{names:?}"
    );
    assert_eq!(place("chat.end"), names.len() - 1);
    let text: String = told
        .iter()
        .filter(|(name, _)| name == "message.delta")
        .map(|(_, data)| data["content"].as_str().unwrap())
        .collect();
    let result = &told.last().unwrap().1["result"];
    assert_eq!(result["output"], json!([{"type": "message", "content": text}]));
    assert!(result["stats"]["model_load_time_seconds"].as_f64().unwrap() > 0.0);
    let mut next = body.clone();
    next["previous_response_id"] = result["response_id"].clone();
    let second = events(&post(server.lmstudio, "/api/v1/chat", &next).await);
    assert!(
        second.iter().all(|(name, _)| !name.starts_with("model_load")),
        "{second:?}"
    );
    let names: Vec<&str> = second.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["chat.start", "prompt_processing.start"], "{names:?}");
    // Too long, and the model is loaded: a status, no stream.
    let long = "ping ".repeat(100_000);
    let refused = post(
        server.lmstudio,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": long, "stream": true}),
    )
    .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (400, &json!("context_length_exceeded")),
        "{}",
        refused.text()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_load_and_failures_are_events() {
    let server = with_stub(&[("STUB_LOAD_MS", "1500"), ("STUB_LOAD_STEPS", "6"), ("STUB_TOKENS", "5")]).await;
    let body = json!({"model": "tiny-chat", "input": "a", "stream": true});
    let told = events(&post(server.lmstudio, "/api/v1/chat", &body).await);
    let progress: Vec<f64> = told
        .iter()
        .filter(|(name, _)| name == "model_load.progress")
        .map(|(_, data)| data["progress"].as_f64().unwrap())
        .collect();
    assert!(!progress.is_empty(), "{told:?}");
    assert!(progress.windows(2).all(|pair| pair[0] < pair[1]), "{progress:?}");
    assert!(
        told.iter()
            .all(|(_, data)| data.get("model_instance_id").is_none_or(|id| id == "tiny-chat"))
    );
    server.stop().await;

    let broken = with_stub(&[
        ("STUB_DIE_LOADING", "exit:1"),
        ("STUB_DIE_MESSAGE", "gguf_init_from_file: invalid magic"),
    ])
    .await;
    let told = events(&post(broken.lmstudio, "/api/v1/chat", &body).await);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["chat.start", "model_load.start", "error", "chat.end"],
        "{told:?}"
    );
    assert_eq!(told[2].1["error"]["code"], "model_load_failed");
    assert_eq!(told[3].1["result"]["output"], json!([]));
    broken.stop().await;

    let cut = with_stub(&[("STUB_CUT_AFTER", "3")]).await;
    let told = events(&post(cut.lmstudio, "/api/v1/chat", &body).await);
    let names: Vec<&str> = told.iter().rev().take(3).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["chat.end", "error", "message.end"], "{told:?}");
    let whole = post(
        cut.lmstudio,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": "a"}),
    )
    .await;
    assert_eq!(
        (whole.status.as_u16(), &whole.json()["error"]["type"]),
        (500, &json!("internal_error"))
    );
    cut.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_load_and_the_answer() {
    let server = with_stub(&[("STUB_LOAD_MS", "60000")]).await;
    let body = json!({"model": "tiny-chat", "input": "a", "stream": true});
    let answer = open(server.lmstudio, "POST", "/api/v1/chat", &[], body.to_string()).await;
    until("the load", || !server.router.instances().is_empty()).await;
    drop(answer);
    until("the end of the load", || server.router.instances().is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_evict_waits_for_the_running_answer() {
    let server = with_stub(&[("STUB_TOKENS", "20"), ("STUB_RATE", "20")]).await;
    let chat = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}]});
    let words = json!({"model": "tiny-embed", "input": "cat"});
    let running = async {
        let reply = post(server.lmstudio, "/v1/chat/completions", &chat).await;
        (reply, server.router.instances())
    };
    let evicting = async {
        let busy = || {
            let instances = server.router.instances();
            instances.iter().any(|i| i.state == ModelState::Ready && i.active > 0)
        };
        until("the running answer", busy).await;
        // Queued behind it: as many as come, one load.
        tokio::join!(
            post(server.lmstudio, "/v1/embeddings", &words),
            post(server.lmstudio, "/v1/embeddings", &words),
        )
    };
    let ((answer, after), (first, second)) = tokio::join!(running, evicting);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 20, "nothing was cut");
    assert!(
        after
            .iter()
            .all(|i| i.model.as_str() != "tiny-embed" || i.state != ModelState::Ready)
    );
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(ids(&server), ["tiny-embed"], "an embedding model counts like any other");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_one_unloaded_model_load_it_once() {
    let server = with_stub(&[("STUB_LOAD_MS", "300"), ("STUB_TOKENS", "2")]).await;
    let chat = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}]});
    let own = json!({"model": "tiny-chat", "input": "x"});
    let asks = (0..6).map(|n| {
        let (path, body) = if n % 2 == 0 {
            ("/v1/chat/completions", &chat)
        } else {
            ("/api/v1/chat", &own)
        };
        post(server.lmstudio, path, body)
    });
    for reply in futures_util::future::join_all(asks).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let instances = server.router.instances();
    assert_eq!(instances.len(), 1);
    // Ids rise with every start: this is the first.
    assert_eq!(instances[0].id.0, 1);
    server.stop().await;
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
