//! The fake origin's own protocol, asked with curl as any client would.
#![expect(clippy::expect_used, reason = "test code may panic")]

use std::process::{Command, Output};

use testkit::{FakeOrigin, HubRepo, OriginFault, OriginHost, OriginLayer};

/// Runs curl; its output has the headers first. Blocking, so the origin needs a second thread.
fn curl(arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["--silent", "--include", "--max-time", "10"])
        .args(arguments)
        .output()
        .expect("curl runs")
}

fn text(arguments: &[&str]) -> String {
    String::from_utf8_lossy(&curl(arguments).stdout).into_owned()
}

fn has(text: &str, parts: &[&str]) {
    let lower = text.to_lowercase();
    for part in parts {
        assert!(lower.contains(&part.to_lowercase()), "{part} is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_ranges_and_faults() {
    let origin = FakeOrigin::start().await.unwrap();
    let url = origin.add_file("x.gguf", &b"0123456789"[..]);
    let whole = text(&[&url]);
    has(
        &whole,
        &[
            "200 OK",
            "content-length: 10",
            "accept-ranges: bytes",
            "etag: \"",
            "0123456789",
        ],
    );
    let etag = whole.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    has(&text(&["--head", &url]), &["200 OK", "content-length: 10"]);
    let part = text(&["--range", "2-4", "--header", &format!("if-range: {etag}"), &url]);
    has(&part, &["206 Partial", "content-range: bytes 2-4/10", "\r\n\r\n234"]);
    has(
        &text(&["--range", "2-4", "--header", "if-range: \"other\"", &url]),
        &["200 OK", "0123456789"],
    );
    has(&text(&["--range", "10-", &url]), &["416", "content-range: bytes */10"]);

    let once = |fault| origin.fault_times("x.gguf", 1, fault);
    once(OriginFault::Cut { after: 4 });
    let cut = curl(&[&url]);
    assert!(
        cut.stdout.ends_with(b"\r\n\r\n0123") && cut.status.code() == Some(18),
        "{cut:?}"
    );
    once(OriginFault::Cut { after: 0 });
    assert_eq!(curl(&[&url]).status.code(), Some(18));
    once(OriginFault::Stall { after: 3 });
    let stalled = curl(&["--max-time", "0.5", &url]);
    assert!(
        stalled.stdout.ends_with(b"\r\n\r\n012") && stalled.status.code() == Some(28),
        "{stalled:?}"
    );
    once(OriginFault::WrongContentRange);
    has(
        &text(&["--range", "2-4", &url]),
        &["206", "bytes 1-4/10", "\r\n\r\n1234"],
    );
    once(OriginFault::IgnoreRange);
    has(&text(&["--range", "2-4", &url]), &["200 OK", "\r\n\r\n0123456789"]);
    once(OriginFault::LongBody { extra: 2 });
    has(&text(&[&url]), &["content-length: 12", "0123456789xx"]);
    once(OriginFault::ShortBody { missing: 2 });
    assert!(text(&[&url]).ends_with("\r\n\r\n01234567"));
    once(OriginFault::WrongContentLength { off_by: 5 });
    assert_eq!(curl(&[&url]).status.code(), Some(18));
    once(OriginFault::FlipByte { at: 0 });
    assert!(text(&[&url]).ends_with("\r\n\r\n1123456789"));
    once(OriginFault::WeakEtag);
    has(&text(&[&url]), &["etag: w/\""]);
    once(OriginFault::NewEtag);
    assert!(!text(&[&url]).contains(etag.trim()));
    once(OriginFault::LoginPage);
    has(&text(&[&url]), &["200 OK", "text/html", "sign in"]);
    once(OriginFault::Status {
        status: 429,
        retry_after: Some("7".into()),
        body: "slow down".into(),
    });
    has(&text(&[&url]), &["429", "retry-after: 7", "slow down"]);
    once(OriginFault::Drop);
    assert_eq!(curl(&[&url]).status.code(), Some(52));
    has(&text(&[&url]), &["200 OK", "0123456789"]);
    assert_eq!(
        origin
            .requests_to("GET", "x.gguf")
            .iter()
            .filter(|r| r.range() == Some("bytes=2-4"))
            .count(),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn registry() {
    let origin = FakeOrigin::start().await.unwrap();
    let model = origin.add_ollama_model("tiny:q8", &[OriginLayer::model(&b"weights"[..])]);
    let base = format!("{}/v2/library/tiny", origin.url());
    let manifest = curl(&[&format!("{base}/manifests/q8")]);
    assert!(manifest.stdout.ends_with(&model.manifest));
    has(
        &text(&[&format!("{base}/manifests/none")]),
        &["404", "MANIFEST_UNKNOWN"],
    );
    let blob = format!("{base}/blobs/{}", model.layers[0]);
    has(&text(&["--head", &blob]), &["200", "content-length: 7"]);
    let moved = text(&["--location", "--header", "authorization: Bearer secret", &blob]);
    has(&moved, &["307", &format!("location: {}", origin.cdn_url()), "weights"]);
    assert!(origin.leaks().is_empty(), "curl keeps credentials to the first host");
    let location = moved
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .trim();
    has(&text(&["--header", "authorization: Bearer secret", location]), &["400"]);
    assert_eq!(origin.leaks().len(), 1);
    has(&text(&[location.split('?').next().unwrap()]), &["403"]);

    origin.require_token("t0", None);
    let refused = text(&[&format!("{base}/manifests/q8")]);
    has(
        &refused,
        &[
            "401",
            &format!("bearer realm=\"{}/token\"", origin.url()),
            "repository:library/tiny:pull",
        ],
    );
    has(&text(&[&format!("{}/token", origin.url())]), &["\"token\":\"t0\""]);
    let allowed = ["--header", "authorization: Bearer t0", &format!("{base}/manifests/q8")];
    has(&text(&allowed), &["200", "schemaVersion"]);
    assert!(
        origin
            .requests()
            .iter()
            .any(|request| request.host == OriginHost::Cdn && request.status == 200)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes() {
    let origin = FakeOrigin::start().await.unwrap();
    let base = format!("{}/v2/me/pushed", origin.url());
    let begun = text(&["--request", "POST", "--data", "", &format!("{base}/blobs/uploads/")]);
    has(&begun, &["202"]);
    let location = begun
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .trim();
    let patch = |range: &str, data: &str| {
        let range = format!("content-range: {range}");
        text(&["--request", "PATCH", "--header", &range, "--data", data, location])
    };
    has(&patch("0-3", "abcd"), &["202", "range: 0-3"]);
    has(&patch("9-10", "zz"), &["416"]);
    has(&patch("4-5", "ef"), &["202", "range: 0-5"]);
    // SHA-256 of "abcdef".
    let digest = "sha256:bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721";
    let end = format!("{location}&digest={}", digest.replace(':', "%3A"));
    has(&text(&["--request", "PUT", "--data", "", &end]), &["201"]);
    assert_eq!(origin.blob(digest).unwrap(), "abcdef");
    let put = |size: u64| {
        let part = format!("{{\"digest\":\"{digest}\",\"size\":{size}}}");
        let manifest = format!("{{\"config\":{part},\"layers\":[{part}]}}");
        let answer = text(&[
            "--request",
            "PUT",
            "--data",
            &manifest,
            &format!("{base}/manifests/latest"),
        ]);
        (manifest, answer)
    };
    has(&put(7).1, &["400", "MANIFEST_BLOB_UNKNOWN"]);
    let (manifest, answer) = put(6);
    has(&answer, &["201"]);
    assert_eq!(origin.manifest("me/pushed").unwrap(), manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn hub() {
    let origin = FakeOrigin::start().await.unwrap();
    let files = || {
        HubRepo::new()
            .lfs("Q4/x-Q4_K_M.gguf", &b"weights"[..])
            .plain("README.md", &b"hello"[..])
    };
    origin.add_hub_repo("o/open", files().paged(1));
    origin.add_hub_repo("o/gated", files().gated("hf_1"));
    origin.add_hub_repo("o/secret", files().private("hf_2"));
    let at = |path: &str| format!("{}{path}", origin.url());
    let file = "/o/open/resolve/main/Q4/x-Q4_K_M.gguf";
    let moved = text(&["--location", &at(file)]);
    has(
        &moved,
        &[
            "302",
            "x-linked-size: 7",
            "x-linked-etag: \"9a129038",
            "x-repo-commit:",
            "weights",
        ],
    );
    let listing = text(&[&at("/api/models/o/open/tree/main?recursive=true")]);
    has(&listing, &["link: <http", "cursor=1", "rel=\"next\""]);
    let gated = text(&[&at("/api/models/o/gated/tree/main?recursive=true")]);
    has(
        &gated,
        &["\"lfs\":{\"oid\":\"", "\"size\":7", "Q4/x-Q4_K_M.gguf", "README.md"],
    );
    let flat = text(&[&at("/api/models/o/gated/tree/main")]);
    assert!(flat.contains("\"type\":\"directory\"") && !flat.contains("x-Q4_K_M"));
    has(&text(&[&at("/api/models/o/gated")]), &["\"gated\":\"auto\""]);
    let guarded = at("/o/gated/resolve/main/README.md");
    has(&text(&[&guarded]), &["401", "x-error-code: GatedRepo"]);
    has(
        &text(&["--header", "authorization: Bearer other", &guarded]),
        &["403", "x-error-code: GatedRepo"],
    );
    has(
        &text(&["--header", "authorization: Bearer hf_1", &guarded]),
        &["200", "hello"],
    );
    has(
        &text(&[&at("/api/models/o/secret")]),
        &["401", "x-error-code: RepoNotFound"],
    );
    has(
        &text(&["--header", "authorization: Bearer hf_2", &at("/api/models/o/secret")]),
        &["200"],
    );
    has(
        &text(&["--header", "authorization: Bearer x", &at("/api/models/o/none")]),
        &["404", "RepoNotFound"],
    );
    has(
        &text(&[&at("/o/open/resolve/main/none")]),
        &["404", "x-error-code: EntryNotFound"],
    );
    let found = text(&[&at("/api/models?search=GATED&limit=3")]);
    assert!(found.contains("o/gated") && !found.contains("o/open"));
}
