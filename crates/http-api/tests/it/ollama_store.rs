//! Ollama's store routes: what a client sends, what it is told, and what is on the disk afterwards.

use std::path::{Path, PathBuf};

use http::StatusCode;
use ollama_store::{Digest, Name, Store};
use serde_json::{Value, json};
use testkit::{FakeOrigin, OriginFault, OriginLayer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Engine, Reply, Server, Setup, call, drain, get, lines, open, patiently, post, read_all};

fn weights(name: &str) -> Vec<u8> {
    std::fs::read(testkit::models_dir().join(name)).unwrap()
}

fn statuses(reply: &Reply) -> Vec<String> {
    lines(&reply.body)
        .iter()
        .map(|line| line["status"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned())
        .collect()
}

async fn names(server: &Server) -> Vec<String> {
    let tags = get(server.ollama, "/api/tags").await.json();
    let mut names: Vec<String> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn store(server: &Server) -> Store {
    Store::open(server.home.data().join("ollama"), ollama_store::Access::Read).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

async fn upload(server: &Server, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let reply = call(
        server.ollama,
        "POST",
        &format!("/api/blobs/{digest}"),
        &[],
        bytes.to_vec(),
    )
    .await;
    assert_eq!((reply.status, reply.text()), (StatusCode::CREATED, String::new()));
    digest
}

const OWN: [&str; 3] = ["tiny-chat:latest", "tiny-embed:latest", "tiny-rerank:latest"];

#[tokio::test(flavor = "multi_thread")]
async fn blobs() {
    let server = Server::plain().await;
    let bytes = b"some bytes".to_vec();
    let digest = Digest::of(&bytes);
    let path = format!("/api/blobs/{digest}");
    let check = |path: String| async move { call(server.ollama, "HEAD", &path, &[], "").await.status.as_u16() };
    assert_eq!(check(path.clone()).await, 404);
    let send = |path: String, bytes: Vec<u8>| async move { call(server.ollama, "POST", &path, &[], bytes).await };
    assert_eq!(send(path.clone(), bytes.clone()).await.status.as_u16(), 201);
    assert_eq!(check(path.clone()).await, 200);
    assert_eq!(check(format!("/api/blobs/sha256-{}", digest.hex())).await, 200);
    assert_eq!(send(path.clone(), bytes.clone()).await.status.as_u16(), 200);
    let other = Digest::of(b"other");
    let wrong = send(format!("/api/blobs/{other}"), bytes.clone()).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.json()),
        (
            400,
            json!({"error": format!("digest mismatch, expected \"{other}\", got \"{digest}\"")})
        )
    );
    assert_eq!(check(format!("/api/blobs/{other}")).await, 404);
    for bad in ["sha256:abc", "..%2f..%2fetc%2fpasswd", "sha512:0", &digest.hex()] {
        let reply = send(format!("/api/blobs/{bad}"), bytes.clone()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()),
            (400, json!({"error": "invalid digest format"})),
            "{bad}"
        );
    }
    assert!(files(&store(&server).root().join("tmp")).is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_larger_than_any_json_body_goes_to_the_disk_and_a_cut_one_leaves_nothing() {
    let mut setup = Setup::default();
    setup.settings.max_body = 1 << 20;
    let server = Server::start(setup).await;
    let big = vec![7_u8; 5 << 20];
    let digest = upload(&server, &big).await;
    assert_eq!(store(&server).blob_size(&digest), Some(5 << 20));
    // Chunked, as Ollama's Go client sends.
    let half = Digest::of(b"whole file");
    let mut stream = TcpStream::connect(server.ollama).await.unwrap();
    let head = format!(
        "POST /api/blobs/{half} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_all(stream).await;
    assert!(!answer.contains("201"), "{answer}");
    let temporary = store(&server).root().join("tmp");
    patiently("the end of the cut upload", async {
        while !files(&temporary).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!store(&server).has_blob(&half));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_copy_show_and_delete() {
    let server = Server::plain().await;
    let reply = post(
        server.ollama,
        "/api/create",
        &json!({"model": "Pirate", "from": "tiny-chat", "system": "Arr.", "template": "{{ .Prompt }}",
            "parameters": {"temperature": 0.5, "stop": ["x", "y"], "num_ctx": 256}, "license": ["L1", "L2"],
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}),
    )
    .await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let said = statuses(&reply);
    assert!(said[0].starts_with("using existing layer sha256:"), "{said:?}");
    assert_eq!(
        said.iter()
            .filter(|line| line.starts_with("creating new layer"))
            .count(),
        6
    );
    assert_eq!(said[said.len() - 2..], ["writing manifest", "success"]);

    let show = post(server.ollama, "/api/show", &json!({"model": "PIRATE"}))
        .await
        .json();
    assert_eq!((&show["system"], &show["license"]), (&json!("Arr."), &json!("L1\nL2")));
    assert_eq!(show["template"], "{{ .Prompt }}");
    assert_eq!(
        show["parameters"],
        "temperature                    0.5\nstop                           \"x\"\nstop                           \"y\"\nnum_ctx                        256"
    );
    assert_eq!(
        show["messages"],
        json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}])
    );
    assert_eq!(show["details"]["parent_model"], "tiny-chat:latest");
    assert!(show["model_info"].as_object().unwrap().len() > 5);
    let modelfile = show["modelfile"].as_str().unwrap();
    for line in [
        "FROM /",
        "SYSTEM \"\"\"Arr.\"\"\"",
        "PARAMETER stop \"x\"",
        "MESSAGE user \"\"\"hi\"\"\"",
        "LICENSE \"\"\"L1\"\"\"",
    ] {
        assert!(modelfile.contains(line), "{modelfile}");
    }

    // From it, with only the parameters changed: everything else is taken over.
    let again = json!({"model": "pirate:v2", "from": "pirate", "parameters": {"num_ctx": 512}, "stream": false});
    let reply = post(server.ollama, "/api/create", &again).await;
    assert_eq!(
        (reply.header("content-type"), reply.json()),
        ("application/json; charset=utf-8", json!({"status": "success"}))
    );
    let show = post(server.ollama, "/api/show", &json!({"model": "pirate:v2"}))
        .await
        .json();
    assert_eq!(show["system"], "Arr.");
    assert!(
        show["parameters"]
            .as_str()
            .unwrap()
            .contains("num_ctx                        512")
    );
    assert!(show["parameters"].as_str().unwrap().contains("temperature"));

    // A name that differs only in case is the same name.
    let same = json!({"model": "pIRATE", "from": "tiny-chat", "stream": false});
    assert_eq!(post(server.ollama, "/api/create", &same).await.status, 200);
    let copy = post(
        server.ollama,
        "/api/copy",
        &json!({"source": "pirate:v2", "destination": "me/captain:1b"}),
    )
    .await;
    assert_eq!((copy.status.as_u16(), copy.text()), (200, String::new()));
    let mut expected: Vec<String> = OWN.iter().map(|name| (*name).to_owned()).collect();
    expected.extend(["Pirate:latest", "me/captain:1b", "Pirate:v2"].map(str::to_owned));
    expected.sort();
    assert_eq!(names(&server).await, expected);
    let digest = |name: &str| {
        let name = Name::parse(name).unwrap();
        store(&server).read(&name).unwrap().digest
    };
    assert_eq!(digest("me/captain:1b"), digest("pirate:v2"));

    // A model of a folder can be copied; its file is referred to, not copied.
    let copy = json!({"source": "tiny-embed", "destination": "vectors"});
    assert_eq!(post(server.ollama, "/api/copy", &copy).await.status, 200);
    let bytes = weights("tiny-embed.gguf");
    let blob = store(&server).blob_path(&Digest::of(&bytes));
    let shared = std::fs::symlink_metadata(&blob).unwrap();
    assert!(
        shared.is_symlink() || std::os::unix::fs::MetadataExt::nlink(&shared) > 1,
        "the weights were copied"
    );

    for name in ["pirate", "PIRATE:V2", "me/captain:1b", "vectors"] {
        let reply = call(
            server.ollama,
            "DELETE",
            "/api/delete",
            &[],
            json!({"model": name}).to_string(),
        )
        .await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, String::new()), "{name}");
    }
    assert_eq!(names(&server).await, OWN);
    assert!(
        files(&store(&server).root().join("blobs")).is_empty(),
        "unused blobs are gone"
    );
    assert!(testkit::models_dir().join("tiny-embed.gguf").is_file());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_from_uploaded_files() {
    let server = Server::start(Setup {
        engine: Engine::Stub(Vec::new()),
        ..Setup::default()
    })
    .await;
    let digest = upload(&server, &weights("tiny-chat.gguf")).await;
    let reply = post(
        server.ollama,
        "/api/create",
        &json!({"model": "mine", "files": {"tiny.gguf": digest.to_string()}, "system": "x"}),
    )
    .await;
    let said = statuses(&reply);
    assert_eq!(said[0], "parsing GGUF");
    assert_eq!(said[1], format!("using existing layer {digest}"));
    let tags = get(server.ollama, "/api/tags").await.json();
    let mine = &tags["models"].as_array().unwrap()[0];
    assert_eq!(mine["name"], "mine:latest", "the newest comes first");
    assert_eq!(mine["details"]["family"], "llama");
    assert!(mine["capabilities"].as_array().unwrap().contains(&json!("tools")));

    let text = upload(&server, b"not a model at all").await;
    let lost = Digest::of(b"never uploaded");
    for (body, error) in [
        (
            json!({"files": {"m.gguf": text.to_string()}}),
            "supplied file was not in GGUF format".to_owned(),
        ),
        (json!({"files": {"m.dat": text.to_string()}}), "unknown type".to_owned()),
        (
            json!({"files": {"model.safetensors": text.to_string()}}),
            "safetensors and PyTorch models cannot be converted here: convert the model to GGUF first".to_owned(),
        ),
        (
            json!({"files": {"m.gguf": lost.to_string()}}),
            format!("blob {lost} is missing"),
        ),
        (
            json!({"from": "mine", "adapters": {"a.gguf": digest.to_string()}}),
            "'a.gguf' is not an adapter".to_owned(),
        ),
        (json!({}), "neither 'from' or 'files' was specified".to_owned()),
        (
            json!({"from": "mine", "quantize": "Q8_0"}),
            "quantize is not available: there is no llama-quantize beside the engine's program".to_owned(),
        ),
        (
            json!({"from": "tiny-embed", "template": "{{ if }}"}),
            "template error: template: :1: unexpected EOF".to_owned(),
        ),
    ] {
        for stream in [true, false] {
            let mut body = body.clone();
            body["model"] = "x".into();
            body["stream"] = stream.into();
            let reply = post(server.ollama, "/api/create", &body).await;
            let text = reply.text();
            let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(last, json!({"error": error}), "{body}");
            // Before the first line it is a status, also for a stream.
            if text.lines().count() == 1 {
                assert_eq!(reply.status.as_u16(), 400, "{body}");
            }
        }
    }
    assert!(!names(&server).await.contains(&"x:latest".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_copy_and_delete() {
    let server = Server::plain().await;
    for (method, path, body, status, error) in [
        ("POST", "/api/copy", json!({}), 400, "source \"\" is invalid"),
        (
            "POST",
            "/api/copy",
            json!({"source": "x", "destination": "a b"}),
            400,
            "destination \"a b\" is invalid",
        ),
        (
            "POST",
            "/api/copy",
            json!({"source": "x", "destination": "y"}),
            404,
            "model \"x\" not found",
        ),
        (
            "POST",
            "/api/copy",
            json!({"source": "tiny-chat", "destination": "con"}),
            400,
            "the name 'con:latest' cannot be stored",
        ),
        ("DELETE", "/api/delete", json!({}), 400, "model is required"),
        (
            "DELETE",
            "/api/delete",
            json!({"name": "../x"}),
            400,
            "name \"../x\" is invalid",
        ),
        (
            "DELETE",
            "/api/delete",
            json!({"name": "x"}),
            404,
            "model 'x' not found",
        ),
        (
            "DELETE",
            "/api/delete",
            json!({"name": "tiny-chat"}),
            403,
            "model 'tiny-chat' is not in LlamaRunner's own store: delete it with the program or in the folder it belongs to",
        ),
        ("POST", "/api/pull", json!({}), 400, "invalid model name"),
        ("POST", "/api/push", json!({}), 400, "model is required"),
        (
            "POST",
            "/api/create",
            json!({"model": "a b"}),
            400,
            "invalid model name",
        ),
        (
            "POST",
            "/api/signout",
            json!({}),
            401,
            "you are not currently signed in",
        ),
        (
            "DELETE",
            "/api/user/keys/abc",
            json!({}),
            401,
            "you are not currently signed in",
        ),
    ] {
        let reply = call(server.ollama, method, path, &[], body.to_string()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()),
            (status, json!({ "error": error })),
            "{path} {body}"
        );
    }
    for path in ["/api/copy", "/api/delete", "/api/pull", "/api/push", "/api/create"] {
        let method = if path == "/api/delete" { "DELETE" } else { "POST" };
        let reply = call(server.ollama, method, path, &[], "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()),
            (400, json!({"error": "missing request body"}))
        );
        let reply = call(server.ollama, "GET", path, &[], "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.text()),
            (405, "405 method not allowed".to_owned())
        );
        assert_eq!(reply.header("allow"), format!("{method}, OPTIONS"));
    }
    server.stop().await;
}

async fn with_origin(origin: &FakeOrigin) -> Server {
    Server::start(Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_tells_every_layer_and_the_model_is_there_at_once() {
    let origin = FakeOrigin::start().await.unwrap();
    let model = origin.add_ollama_model(
        "library/tiny:latest",
        &[
            OriginLayer::model(weights("tiny-chat.gguf")),
            OriginLayer::new("system", "Be brief."),
        ],
    );
    let server = with_origin(&origin).await;
    let reply = post(server.ollama, "/api/pull", &json!({"model": "tiny"})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-type")),
        (200, "application/x-ndjson")
    );
    let told = lines(&reply.body);
    let said = statuses(&reply);
    assert_eq!(said[0], "pulling manifest");
    assert_eq!(
        said[said.len() - 3..],
        ["verifying sha256 digest", "writing manifest", "success"]
    );
    for digest in &model.layers {
        let hex = ollama_store::Digest::from_hex(digest.trim_start_matches("sha256:"))
            .unwrap()
            .hex();
        let last = told
            .iter()
            .rev()
            .find(|line| line["digest"] == format!("sha256:{hex}").as_str())
            .unwrap_or_else(|| panic!("{digest} is not told: {said:?}"));
        assert_eq!(last["completed"], last["total"]);
        assert_eq!(last["status"], format!("pulling {}", &hex[..12]));
    }
    let show = post(server.ollama, "/api/show", &json!({"model": "tiny"})).await.json();
    assert_eq!(show["system"], "Be brief.");
    let tags = get(server.ollama, "/api/tags").await.json();
    assert_eq!(
        tags["models"][0]["digest"],
        Digest::of(&model.manifest).hex(),
        "the manifest is kept as it came"
    );
    // Again: nothing to fetch, and the same end.
    let reply = post(server.ollama, "/api/pull", &json!({"name": "tiny", "stream": false})).await;
    assert_eq!(reply.json(), json!({"status": "success"}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_an_error_of_the_stream() {
    let origin = FakeOrigin::start().await.unwrap();
    let server = with_origin(&origin).await;
    let reply = post(server.ollama, "/api/pull", &json!({"model": "nosuch"})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        lines(&reply.body),
        [
            json!({"status": "pulling manifest"}),
            json!({"error": "pull model manifest: file does not exist"})
        ]
    );
    let reply = post(server.ollama, "/api/pull", &json!({"model": "nosuch", "stream": false})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()),
        (500, json!({"error": "pull model manifest: file does not exist"}))
    );
    let reply = post(server.ollama, "/api/create", &json!({"model": "x", "from": "nosuch"})).await;
    assert_eq!(
        lines(&reply.body).pop().unwrap(),
        json!({"error": "pull model manifest: file does not exist"})
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_nobody_waits_for_stops_and_goes_on_where_it_was() {
    let origin = FakeOrigin::start().await.unwrap();
    let bytes = weights("tiny-chat.gguf");
    let model = origin.add_ollama_model("library/tiny:latest", &[OriginLayer::model(bytes.clone())]);
    let hex = model.layers[0].trim_start_matches("sha256:");
    origin.fault(
        hex,
        OriginFault::Stall {
            after: bytes.len() as u64 / 2,
        },
    );
    let server = with_origin(&origin).await;
    let answer = open(
        server.ollama,
        "POST",
        "/api/pull",
        &[("content-type", "application/json")],
        json!({"model": "tiny"}).to_string(),
    )
    .await;
    let (_, mut body) = answer.into_parts();
    patiently("progress", async {
        loop {
            let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
            let text = String::from_utf8_lossy(frame.data_ref().unwrap()).into_owned();
            // Not the small layer beside it: that one is whole before the other begins, and nothing of it can go on.
            let of_the_weights =
                |line: Value| line["digest"] == *model.layers[0] && line["completed"].as_u64() > Some(0);
            if text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .any(of_the_weights)
            {
                break;
            }
        }
    })
    .await;
    let job = server.downloads.jobs().pop().unwrap();
    drop(body);
    patiently("the pause", async {
        let mut changes = job.watch();
        changes
            .wait_for(|view| view.state == domain::JobState::Paused)
            .await
            .unwrap();
    })
    .await;
    assert!(job.view().bytes_done > 0, "what was there is kept");
    origin.clear_faults();
    origin.clear_requests();
    let reply = post(server.ollama, "/api/pull", &json!({"model": "tiny"})).await;
    assert_eq!(statuses(&reply).pop().unwrap(), "success");
    assert!(
        origin.requests().iter().any(|request| request.range().is_some()),
        "it went on where it was: {:?}",
        origin.requests()
    );
    assert!(names(&server).await.contains(&"tiny:latest".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn push_uploads_what_the_registry_lacks() {
    let origin = FakeOrigin::start().await.unwrap();
    let server = with_origin(&origin).await;
    let copy = json!({"source": "tiny-chat", "destination": "me/pushed"});
    assert_eq!(post(server.ollama, "/api/copy", &copy).await.status, 200);
    let reply = post(server.ollama, "/api/push", &json!({"model": "me/pushed"})).await;
    let said = statuses(&reply);
    assert_eq!(said[0], "retrieving manifest");
    assert_eq!(said[said.len() - 2..], ["pushing manifest", "success"]);
    assert!(
        said.iter().any(|line| line.starts_with("pushing ") && line.len() == 20),
        "{said:?}"
    );
    let stored = store(&server).read(&Name::parse("me/pushed").unwrap()).unwrap();
    let at_origin = origin.manifest("me/pushed:latest").unwrap();
    assert_eq!(Digest::of(&at_origin), stored.digest);
    let reply = post(
        server.ollama,
        "/api/push",
        &json!({"model": "me/nosuch", "stream": false}),
    )
    .await;
    assert_eq!(reply.status, 500);
    assert!(reply.json()["error"].as_str().unwrap().contains("not found"));
    let reply = post(server.ollama, "/api/push", &json!({"model": "a b"})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        lines(&reply.body).pop().unwrap(),
        json!({"error": "invalid model name"})
    );
    server.stop().await;
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_model_answers_with_what_it_stores_and_outlives_its_name() {
    let server = Server::start(Setup {
        engine: Engine::Real,
        ..Setup::default()
    })
    .await;
    let made = json!({"model": "short", "from": "tiny-chat", "stream": false, "system": "Be brief.",
        "parameters": {"num_predict": 2, "temperature": 0}, "messages": [user("hi"), {"role": "assistant", "content": "ho"}]});
    assert_eq!(post(server.ollama, "/api/create", &made).await.status, 200);
    let question = user("What is the capital of France?");
    let render = json!({"model": "short", "messages": [question], "stream": false, "_debug_render_only": true});
    let rendered = post(server.ollama, "/api/chat", &render).await.json();
    let prompt = rendered["_debug_info"]["rendered_template"]
        .as_str()
        .unwrap()
        .to_owned();
    let places: Vec<_> = ["Be brief.", "hi", "ho", "France"]
        .iter()
        .map(|text| prompt.find(text).unwrap())
        .collect();
    assert!(places.is_sorted(), "{prompt}");
    let own = json!({"model": "short", "messages": [{"role": "system", "content": "Mine."}, question], "stream": false,
        "_debug_render_only": true});
    let rendered = post(server.ollama, "/api/chat", &own).await.json();
    assert!(
        !rendered.to_string().contains("Be brief."),
        "the request's system prompt goes before the stored one"
    );

    let chat = json!({"model": "short", "messages": [question], "stream": false});
    let reply = post(server.ollama, "/api/chat", &chat).await.json();
    assert_eq!(
        (&reply["eval_count"], &reply["done_reason"]),
        (&json!(2), &json!("length")),
        "{reply}"
    );
    let more = json!({"model": "short", "messages": [question], "stream": false, "options": {"num_predict": 1}});
    assert_eq!(post(server.ollama, "/api/chat", &more).await.json()["eval_count"], 1);

    // A second name over the same weights and launch runs in the same engine.
    let copy = json!({"source": "short", "destination": "second"});
    assert_eq!(post(server.ollama, "/api/copy", &copy).await.status, 200);
    let second = json!({"model": "second", "prompt": "Hello", "stream": false});
    assert_eq!(
        post(server.ollama, "/api/generate", &second).await.json()["model"],
        "second"
    );
    let loaded = get(server.ollama, "/api/ps").await.json();
    assert_eq!(loaded["models"].as_array().unwrap().len(), 1, "{loaded}");

    for name in ["short", "second"] {
        let reply = call(
            server.ollama,
            "DELETE",
            "/api/delete",
            &[],
            json!({"model": name}).to_string(),
        )
        .await;
        assert_eq!(reply.status, 200);
    }
    let loaded = get(server.ollama, "/api/ps").await.json();
    assert_eq!(
        loaded["models"].as_array().unwrap().len(),
        1,
        "it runs until it expires: {loaded}"
    );
    assert_eq!(post(server.ollama, "/api/chat", &chat).await.status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_made_anew_is_loaded_anew() {
    let server = Server::start(Setup {
        engine: Engine::Real,
        ..Setup::default()
    })
    .await;
    let make = |from: &str| json!({"model": "x", "from": from, "stream": false});
    assert_eq!(post(server.ollama, "/api/create", &make("tiny-chat")).await.status, 200);
    let ask = json!({"model": "x", "prompt": "Hello", "stream": false});
    assert_eq!(post(server.ollama, "/api/generate", &ask).await.status, 200);
    assert_eq!(
        post(server.ollama, "/api/create", &make("tiny-embed")).await.status,
        200
    );
    let reply = post(server.ollama, "/api/generate", &ask).await;
    assert_eq!(reply.json(), json!({"error": "\"x\" does not support generate"}));
    let embed = json!({"model": "x", "input": "hello"});
    let vectors = post(server.ollama, "/api/embed", &embed).await.json();
    let plain = post(
        server.ollama,
        "/api/embed",
        &json!({"model": "tiny-embed", "input": "hello"}),
    )
    .await
    .json();
    assert_eq!(vectors["embeddings"], plain["embeddings"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quantizes_where_the_engine_brings_the_program() {
    let home = testkit::TempHome::new().unwrap();
    let engine = home.path().join("llama-server");
    std::os::unix::fs::symlink(testkit::stub_engine_path(), &engine).unwrap();
    let program = home.path().join("llama-quantize");
    let script = "#!/bin/sh\necho '[   1/   2] a'\necho '[   2/   2] b'\n[ \"$3\" = Q4_K_M ] && { echo no; exit 1; }\n/bin/cat \"$1\" > \"$2\"\necho extra >> \"$2\"\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::start(Setup {
        engine: Engine::At(engine),
        ..Setup::default()
    })
    .await;
    let make = |kind: &str| json!({"model": "q", "from": "tiny-chat", "quantize": kind});
    let reply = post(server.ollama, "/api/create", &make("Q8_0")).await;
    let told = lines(&reply.body);
    let quantizing: Vec<&Value> = told
        .iter()
        .filter(|line| line["status"] == "quantizing F16 model to Q8_0")
        .collect();
    assert_eq!(quantizing.len(), 3, "{told:?}");
    assert_eq!(quantizing[2]["completed"], quantizing[2]["total"]);
    assert_eq!(statuses(&reply).pop().unwrap(), "success");
    let stored = store(&server).read(&Name::parse("q").unwrap()).unwrap();
    assert_eq!(
        stored.manifest.layers[0].size,
        weights("tiny-chat.gguf").len() as u64 + 6
    );
    let failed = post(server.ollama, "/api/create", &make("Q4_K_M")).await;
    assert_eq!(
        lines(&failed.body).pop().unwrap(),
        json!({"error": "llama-quantize failed: no"})
    );
    assert!(files(&store(&server).root().join("tmp")).is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_from_outside_never_choose_a_path() {
    let origin = FakeOrigin::start().await.unwrap();
    let server = with_origin(&origin).await;
    let outside = files(&server.home.data()).len();
    for name in [
        "../../evil",
        "..",
        "a/../../b",
        "/etc/passwd",
        "a\\b",
        "c:/windows",
        "x:..",
        "x:../y",
        "http://../x",
        "nul",
        "a/b/c/d",
        "\u{0}",
        "..%2f..%2fx",
        "x.",
        "con:1",
    ] {
        for (method, path, body) in [
            (
                "POST",
                "/api/create",
                json!({"model": name, "from": "tiny-chat", "stream": false}),
            ),
            ("POST", "/api/copy", json!({"source": "tiny-chat", "destination": name})),
            ("POST", "/api/pull", json!({"model": name, "stream": false})),
            ("POST", "/api/push", json!({"model": name, "stream": false})),
            ("DELETE", "/api/delete", json!({"model": name})),
        ] {
            let reply = call(server.ollama, method, path, &[], body.to_string()).await;
            assert!(reply.status.as_u16() >= 400, "{path} {name:?}: {}", reply.text());
        }
    }
    assert_eq!(files(&server.home.data()).len(), outside);
    assert_eq!(names(&server).await, OWN);
    let stream = open(
        server.ollama,
        "POST",
        "/api/pull",
        &[],
        json!({"model": "con"}).to_string(),
    )
    .await;
    drain(stream.into_body()).await;
    server.stop().await;
}
