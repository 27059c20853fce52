//! Ollama's store routes: what a client sends, what it is told, and what is on the disk afterwards.

use std::path::{Path, PathBuf};

use http::StatusCode;
use ollama_store::{Digest, Store};
use serde_json::json;
use testkit::FakeOrigin;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Reply, Server, Setup, call, drain, get, lines, open, patiently, read_all};

mod create;
mod pull;

pub(crate) fn weights(name: &str) -> Vec<u8> {
    std::fs::read(testkit::models_dir().join(name)).unwrap()
}

pub(crate) fn statuses(reply: &Reply) -> Vec<String> {
    lines(&reply.body)
        .iter()
        .map(|line| line["status"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned())
        .collect()
}

pub(crate) async fn names(server: &Server) -> Vec<String> {
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

pub(crate) fn store(server: &Server) -> Store {
    Store::open(server.home.data().join("ollama"), ollama_store::Access::Read).unwrap()
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

pub(crate) async fn upload(server: &Server, bytes: &[u8]) -> Digest {
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

pub(crate) const OWN: [&str; 3] = ["tiny-chat:latest", "tiny-embed:latest", "tiny-rerank:latest"];

pub(crate) async fn with_origin(origin: &FakeOrigin) -> Server {
    Server::start(Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    })
    .await
}

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
