//! Models made from others and from uploaded files, and what they answer.

use ollama_store::{Digest, Name, media};
use serde_json::{Value, json};

use super::{OWN, files, names, statuses, store, upload, weights};
use crate::harness::{Engine, Server, Setup, call, get, lines, post};

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
    // In LM Studio's words too, and once.
    let own = json!({"model": "short", "input": "What is the capital of France?"});
    let answer = post(server.lmstudio, "/api/v1/chat", &own).await.json();
    assert_eq!(
        (
            &answer["stats"]["input_tokens"],
            &answer["stats"]["total_output_tokens"]
        ),
        (&reply["prompt_eval_count"], &json!(2)),
        "{answer}"
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
async fn a_base_that_cannot_be_read_whole_is_refused() {
    let server = Server::plain().await;
    let base = json!({"model": "base", "from": "tiny-chat", "parameters": {"num_ctx": 256}, "stream": false});
    assert_eq!(post(server.ollama, "/api/create", &base).await.status, 200);
    let stored = store(&server).read(&Name::parse("base").unwrap()).unwrap().manifest;
    let parameters = stored.of_kind(media::PARAMS).next().unwrap().clone();
    let derived = json!({"model": "derived", "from": "base", "parameters": {"seed": 1}, "stream": false});
    for (layer, what) in [(parameters, "parameters"), (stored.config.clone(), "configuration")] {
        let path = store(&server).blob_path(&layer.digest);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, "{\"num_ctx\":").unwrap();
        let reply = post(server.ollama, "/api/create", &derived).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&format!("the model's {what}")), "{error}");
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(post(server.ollama, "/api/create", &derived).await.status, 200);
    server.stop().await;
}
