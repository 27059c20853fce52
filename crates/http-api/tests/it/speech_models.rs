//! Speech models in lists, in requests that are not theirs, downloaded and deleted.

use domain::EngineKind;
use http_api::{Class, Dialect, Verb, routes};
use models::{RegistrySettings, VoiceEngine};
use serde_json::{Value, json};
use testkit::{FakeOrigin, HubRepo, WhisperCraft};

use crate::harness::{Reply, Server, Setup, call, get, lines, post};

const WHISPER: &str = "tiny-whisper";
const VOICE: &str = "some-voice";
/// Routes that give no work to a model.
const NO_WORK: [&str; 6] = [
    "/api/show",
    "/api/me",
    "/api/experimental/web_search",
    "/api/experimental/web_fetch",
    "/api/signout",
    "/v1/streams/lookup",
];

async fn with_voice() -> Server {
    let voice = VoiceEngine {
        key: VOICE.to_owned(),
        engine: EngineKind::Speech,
        backend: "espeak-ng".to_owned(),
        path: "/usr/bin/espeak-ng".into(),
        display_name: "A voice".to_owned(),
        ..VoiceEngine::default()
    };
    Server::start(Setup {
        library: RegistrySettings {
            voices: vec![voice],
            ..RegistrySettings::default()
        },
        ..Setup::default()
    })
    .await
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

fn named<'l>(list: &'l Value, key: &str, name: &str) -> &'l Value {
    let found = list.as_array().unwrap().iter().find(|item| item[key] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {list}"))
}

#[tokio::test]
async fn listed_where_callers_look_for_all_kinds() {
    let server = with_voice().await;
    let list = get(server.management, "/v1/models").await.json();
    let whisper = named(&list["data"], "id", WHISPER);
    assert_eq!(whisper["capabilities"], json!(["transcription", "translation"]));
    assert_eq!(
        whisper["architecture"],
        json!({"input_modalities": ["audio"], "output_modalities": ["text"]})
    );
    assert_eq!(whisper["model_family"], "whisper");
    assert_eq!(whisper["quantization"], "INT8");
    let voice = named(&list["data"], "id", VOICE);
    assert_eq!(voice["capabilities"], json!(["speech"]));
    assert_eq!(
        voice["architecture"],
        json!({"input_modalities": ["text"], "output_modalities": ["audio"]})
    );
    let one = get(server.management, "/v1/models/tiny-whisper").await.json();
    assert_eq!(one["capabilities"], whisper["capabilities"]);

    let info = get(server.management, "/v1/models/tiny-whisper/info").await.json();
    assert_eq!(
        (&info["format"], &info["architecture"], &info["loaded"]),
        (&json!("CTranslate2"), &json!("whisper"), &json!(false))
    );
    assert!(info["path"].as_str().unwrap().ends_with("tiny-whisper"), "{info}");
    let status = get(server.management, "/v1/models/tiny-whisper/status").await.json();
    assert_eq!(status["status"], "unloaded");
    let state = get(server.management, "/v1/state").await.json();
    let shown = named(&state["models"], "key", WHISPER);
    assert_eq!(shown["capabilities"], json!(["transcription", "translation"]));
    assert_eq!(state["problems"], json!([]));
    let audio = get(server.management, "/v1/audio/models").await.json();
    assert_eq!(names(&audio["data"], "id"), [VOICE, WHISPER]);
    server.stop().await;
}

#[tokio::test]
async fn not_listed_where_callers_chat_with_whatever_is_listed() {
    let server = with_voice().await;
    for to in [server.ollama, server.lmstudio, server.management] {
        let tags = get(to, "/api/tags").await.json();
        let mut shown = names(&tags["models"], "name");
        shown.sort();
        assert_eq!(shown, ["tiny-chat:latest", "tiny-embed:latest", "tiny-rerank:latest"]);
        let bare = get(to, "/models").await.json();
        let ids = names(&bare["data"], "id");
        assert!(ids.iter().any(|id| id.contains("tiny-chat")), "{ids:?}");
        assert!(
            !ids.iter().any(|id| id.contains("whisper") || id.contains(VOICE)),
            "{ids:?}"
        );
    }
    let header = [("anthropic-version", "2023-06-01")];
    let list = call(server.management, "GET", "/v1/models", &header, "").await.json();
    assert!(!names(&list["data"], "id").iter().any(|id| id.contains("whisper")));
    server.stop().await;
}

#[tokio::test]
async fn text_work_is_refused_on_every_route() {
    let server = with_voice().await;
    let mut asked = 0;
    let works = routes().iter().filter(|route| {
        route.method == Verb::Post
            && route.class == Class::Inference
            && route.dialect != Dialect::Audio
            && !NO_WORK.contains(&route.path)
    });
    for route in works {
        for model in [WHISPER, VOICE] {
            let body = json!({
                "model": model, "messages": [{"role": "user", "content": "Hello"}], "prompt": "Hello", "max_tokens": 5,
                "input": "Hello", "content": "Hello", "query": "Hello", "documents": ["Hello"], "tokens": [1],
                "input_prefix": "a", "input_suffix": "b", "stream": false,
            });
            // Some refuse fields that they do not know.
            let body = if route.path == "/api/v1/chat" || route.path.contains("responses") {
                json!({"model": model, "input": "Hello"})
            } else {
                body
            };
            for stream in [false, true] {
                let mut body = body.clone();
                body["stream"] = stream.into();
                let headers = [
                    ("content-type", "application/json"),
                    ("anthropic-version", "2023-06-01"),
                ];
                let reply = call(server.management, "POST", route.path, &headers, body.to_string()).await;
                let text = reply.text();
                assert_eq!(reply.status, 400, "{} {model} {stream}: {text}", route.path);
                let says = text.contains("does not support") || text.contains("which can neither chat");
                assert!(says && text.contains(model), "{} {model}: {text}", route.path);
                asked += 1;
            }
        }
    }
    assert!(asked > 100, "{asked}");
    for path in ["/slots", "/metrics", "/props", "/lora-adapters"] {
        let reply = get(server.management, &format!("{path}?model={WHISPER}")).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
    }
    for (path, body) in [
        ("/api/copy", json!({"source": WHISPER, "destination": "x"})),
        ("/api/create", json!({"model": "x", "from": WHISPER, "stream": false})),
    ] {
        let reply = post(server.ollama, path, &body).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        assert!(
            said(&reply).contains("can be neither copied nor built upon"),
            "{}",
            reply.text()
        );
    }
    assert!(
        server.router.instances().is_empty(),
        "no engine was started for any of it"
    );
    server.stop().await;
}

#[tokio::test]
async fn shown_with_what_it_can_do() {
    let server = with_voice().await;
    let show = async |model: &str| {
        let reply = post(server.ollama, "/api/show", &json!({"model": model})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let whisper = show(WHISPER).await;
    assert_eq!(whisper["capabilities"], json!(["transcription", "translation"]));
    assert_eq!(whisper["details"]["format"], "ctranslate2");
    assert_eq!(whisper["details"]["family"], "whisper");
    assert_eq!(whisper["model_info"]["general.architecture"], "whisper");
    assert_eq!(show(VOICE).await["capabilities"], json!(["speech"]));
    server.stop().await;
}

fn offer(origin: &FakeOrigin, repo: &str) {
    let files = WhisperCraft::default().files();
    let made = files.into_iter().fold(HubRepo::new(), |made, (name, contents)| {
        if name == "model.bin" {
            made.lfs(name, contents)
        } else {
            made.plain(name, contents)
        }
    });
    origin.add_hub_repo(repo, made.plain("README.md", &b"x"[..]));
}

async fn fetching() -> (FakeOrigin, Server) {
    let origin = FakeOrigin::start().await.unwrap();
    let setup = Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    };
    (origin, Server::start(setup).await)
}

async fn has(server: &Server, name: &str) -> bool {
    get(server.management, &format!("/v1/models/{name}/info")).await.status == 200
}

fn said(reply: &Reply) -> String {
    reply.json()["error"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn pulled_by_its_names_and_deleted() {
    let (origin, server) = fetching().await;
    offer(&origin, "Systran/faster-whisper-base");
    offer(&origin, "mobiuslabsgmbh/faster-whisper-large-v3-turbo");
    assert!(!has(&server, "whisper-base").await);
    let reply = post(server.ollama, "/api/pull", &json!({"model": "whisper-base"})).await;
    let told = lines(&reply.body);
    assert_eq!(told.last().unwrap()["status"], "success", "{}", reply.text());
    assert!(reply.text().contains("pulling tokenizer.json"), "{}", reply.text());
    // At once, by every name.
    for name in [
        "whisper-base",
        "base",
        "Systran%2Ffaster-whisper-base",
        "openai%2Fwhisper-base",
    ] {
        assert!(has(&server, name).await, "{name}");
    }
    let catalog = server.registry.catalog();
    assert!(matches!(
        catalog.listener(Some("base"), domain::audio::Task::Translate),
        models::SpeechName::Found(_)
    ));
    let again = post(
        server.ollama,
        "/api/pull",
        &json!({"model": "Systran/faster-whisper-base", "stream": false}),
    )
    .await;
    assert_eq!(again.json(), json!({"status": "success"}));
    assert_eq!(origin.requests_to("GET", "/resolve/main/tokenizer.json").len(), 1);

    let job = post(server.management, "/v1/downloads", &json!({"model": "turbo"})).await;
    assert_eq!(job.status, 202, "{}", job.text());
    assert_eq!(job.json()["name"], "mobiuslabsgmbh/faster-whisper-large-v3-turbo");
    let id = domain::JobId(job.json()["id"].as_str().unwrap().to_owned());
    server.downloads.job(&id).unwrap().wait().await.unwrap();
    assert!(has(&server, "large-v3-turbo").await);

    // Of others, what is called like one: its files decide what it is.
    offer(&origin, "me/whisper-mine");
    let job = post(server.management, "/v1/downloads", &json!({"model": "me/whisper-mine"})).await;
    let id = domain::JobId(job.json()["id"].as_str().unwrap().to_owned());
    server.downloads.job(&id).unwrap().wait().await.unwrap();
    assert!(has(&server, "me%2Fwhisper-mine").await);

    let delete = async |name: &str| {
        let body = json!({"model": name}).to_string();
        call(server.ollama, "DELETE", "/api/delete", &[], body).await
    };
    let folder = server.home.data().join("models/whisper");
    assert_eq!(delete("base").await.status, 200);
    assert_eq!(delete("me/whisper-mine").await.status, 200);
    assert!(!has(&server, "whisper-base").await);
    assert!(has(&server, "turbo").await);
    let left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["mobiuslabsgmbh__faster-whisper-large-v3-turbo"]);
    // Not ours to delete: in a folder of the user's.
    let reply = delete(WHISPER).await;
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert!(
        said(&reply).contains("is not in LlamaRunner's own store"),
        "{}",
        reply.text()
    );
    assert!(testkit::tiny_whisper_dir().join("model.bin").is_file());
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_fetched_is_said() {
    let (_origin, server) = fetching().await;
    let reply = post(
        server.ollama,
        "/api/pull",
        &json!({"model": "whisper-base", "stream": false}),
    )
    .await;
    assert!(!reply.status.is_success());
    assert!(
        said(&reply).contains("the hub has no repository Systran/faster-whisper-base"),
        "{}",
        reply.text()
    );
    server.stop().await;
}
