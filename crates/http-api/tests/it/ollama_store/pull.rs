//! Models that come from a registry and go there.

use ollama_store::{Digest, Name};
use serde_json::{Value, json};
use testkit::{FakeOrigin, OriginFault, OriginLayer};

use super::{names, statuses, store, weights, with_origin};
use crate::harness::{get, lines, open, patiently, post};

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
