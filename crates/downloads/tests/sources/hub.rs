use downloads::DownloadError;
use downloads::sources::hub;
use ollama_store::Digest;
use testkit::{HubRepo, OriginLayer};

use crate::rig::{Rig, said};

fn gguf() -> Vec<u8> {
    gguf::craft::Craft::model("tiny").build()
}

#[tokio::test]
async fn a_hub_repository_becomes_a_stored_model() {
    let rig = Rig::new().await;
    let repo = HubRepo::new()
        .lfs("tiny-Q4_K_M.gguf", gguf())
        .lfs("tiny-Q8_0.gguf", &b"other"[..])
        .lfs("mmproj-tiny-F16.gguf", &b"projector"[..])
        .plain("params", &br#"{"stop":["x"]}"#[..])
        .plain("system", &b"be brief"[..])
        .plain("README.md", &b"hello"[..]);
    rig.fake.add_hub_repo("o/tiny-GGUF", repo.paged(2));
    let plan = rig.ollama("hf.co/o/tiny-GGUF").await.unwrap();
    assert_eq!(plan.name, "hf.co/o/tiny-GGUF:latest");
    assert_eq!(plan.quantization.as_deref(), Some("Q4_K_M"));
    assert_eq!(plan.files.len(), 2);
    assert_eq!(plan.files[0].sha256, Some(Digest::of(&gguf())));
    assert_eq!(plan.files[0].url.path(), "/o/tiny-GGUF/resolve/main/tiny-Q4_K_M.gguf");
    assert_eq!(plan.files[1].sha256, Some(Digest::of(b"projector")));
    let other = rig.ollama("huggingface.co/o/tiny-GGUF:q8_0").await.unwrap();
    assert_eq!(other.quantization.as_deref(), Some("Q8_0"));
    let by_file = rig.ollama("hf.co/o/tiny-GGUF:tiny-Q8_0.gguf").await.unwrap();
    assert_eq!(by_file.files[0].url, other.files[0].url);
    assert_eq!(
        said(rig.ollama("hf.co/o/tiny-GGUF:Q2_K").await),
        "pull model manifest: o/tiny-GGUF has no quantization \"Q2_K\": it has Q4_K_M, Q8_0"
    );
}

#[tokio::test]
async fn split_models_come_whole_from_the_hub() {
    let rig = Rig::new().await;
    let repo = HubRepo::new()
        .lfs("Q4_K_M/tiny-Q4_K_M-00002-of-00002.gguf", &b"two"[..])
        .lfs("Q4_K_M/tiny-Q4_K_M-00001-of-00002.gguf", &b"one"[..])
        .lfs("Q8_0/tiny-Q8_0-00001-of-00003.gguf", &b"lonely"[..]);
    rig.fake.add_hub_repo("o/tiny", repo);
    let plan = rig.ollama("hf.co/o/tiny").await.unwrap();
    let hashes: Vec<String> = plan.files.iter().map(|file| file.label.clone()).collect();
    assert_eq!(hashes, [Digest::of(b"one").to_string(), Digest::of(b"two").to_string()]);
    let plan = rig.hub("o/tiny", Some("Q4_K_M")).await.unwrap();
    assert_eq!(
        Rig::paths(&plan),
        [
            "o/tiny/tiny-Q4_K_M-00001-of-00002.gguf",
            "o/tiny/tiny-Q4_K_M-00002-of-00002.gguf"
        ]
    );
    assert_eq!(plan.name, "o/tiny/tiny-Q4_K_M-00001-of-00002.gguf");
    // A set with a part missing is not offered.
    assert!(said(rig.hub("o/tiny", Some("Q8_0")).await).ends_with("it has Q4_K_M"));
}

#[tokio::test]
async fn hub_files_by_name_label_and_address() {
    let rig = Rig::new().await;
    let repo = HubRepo::new()
        .lfs("tiny-Q4_K_M.gguf", &b"four"[..])
        .lfs("deep/tiny-Q8_0.gguf", &b"eight"[..])
        .plain("tiny-odd name-F16.gguf", &b"sixteen"[..]);
    rig.fake.add_hub_repo("o/tiny", repo);
    let base = rig.fake.url();
    for (repo, what, path) in [
        ("o/tiny".to_owned(), None, "o/tiny/tiny-Q4_K_M.gguf"),
        ("o/tiny".to_owned(), Some("Q8_0"), "o/tiny/tiny-Q8_0.gguf"),
        (
            "o/tiny".to_owned(),
            Some("deep/tiny-Q8_0.gguf"),
            "o/tiny/tiny-Q8_0.gguf",
        ),
        (format!("{base}/o/tiny"), None, "o/tiny/tiny-Q4_K_M.gguf"),
        (format!("{base}/o/tiny"), Some("Q8_0"), "o/tiny/tiny-Q8_0.gguf"),
        (format!("{base}/o/tiny/tree/main/deep"), None, "o/tiny/tiny-Q8_0.gguf"),
        (
            format!("{base}/o/tiny/blob/main/deep/tiny-Q8_0.gguf"),
            None,
            "o/tiny/tiny-Q8_0.gguf",
        ),
        (
            "https://huggingface.co/o/tiny".to_owned(),
            None,
            "o/tiny/tiny-Q4_K_M.gguf",
        ),
        (
            format!("{base}/o/tiny/resolve/main/tiny-odd%20name-F16.gguf"),
            None,
            "o/tiny/tiny-odd name-F16.gguf",
        ),
    ] {
        let plan = rig.hub(&repo, what).await.unwrap();
        assert_eq!(Rig::paths(&plan), [path], "{repo} {what:?}");
        assert_eq!(plan.files[0].sha256.is_some(), !path.contains("odd"));
    }
    // The hub's addresses are the hub's matter, also as plain ones.
    let plan = rig
        .url(&format!("{base}/o/tiny/resolve/main/deep/tiny-Q8_0.gguf"), None)
        .await
        .unwrap();
    assert_eq!(plan.files[0].sha256, Some(Digest::of(b"eight")));
}

#[tokio::test]
async fn gated_and_private_repositories() {
    let rig = Rig::new().await;
    let files = || HubRepo::new().lfs("tiny-Q4_K_M.gguf", &b"four"[..]);
    let add = |rig: &Rig| {
        rig.fake.add_hub_repo("o/gated", files().gated("hf_good"));
        rig.fake.add_hub_repo("o/private", files().private("hf_good"));
    };
    add(&rig);
    let page = rig.fake.url();
    let locked =
        format!("o/gated is gated: accept its licence at {page}/o/gated, then set a Hugging Face token (HF_TOKEN)");
    let refused = rig.hub("o/gated", None).await.unwrap_err();
    assert_eq!(refused, DownloadError::Unauthorized(locked.clone()));
    assert_eq!(
        said(rig.ollama("hf.co/o/gated").await),
        format!("pull model manifest: {locked}")
    );
    assert_eq!(
        said(rig.hub("o/private", None).await),
        "the hub has no repository o/private, or it is private: then set a Hugging Face token (HF_TOKEN)"
    );

    let rig = Rig::with(|settings| settings.hub_token = Some("hf_bad".into())).await;
    add(&rig);
    assert!(said(rig.hub("o/gated", None).await).ends_with("with the account that the Hugging Face token belongs to"));
    assert_eq!(
        said(rig.hub("o/private", None).await),
        "the hub has no repository o/private"
    );

    let rig = Rig::with(|settings| settings.hub_token = Some("hf_good".into())).await;
    add(&rig);
    let plan = rig.hub("o/gated", None).await.unwrap();
    assert_eq!(plan.files[0].headers["authorization"], "Bearer hf_good");
    assert!(!format!("{plan:?}").contains("hf_good"));
    rig.hub("o/private", None).await.unwrap();
    rig.ollama("hf.co/o/gated").await.unwrap();
    // The token is the hub's: a registry never sees it.
    rig.fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    rig.fake.clear_requests();
    let plan = rig.ollama("tiny").await.unwrap();
    assert!(!plan.files[0].headers.contains_key("authorization"));
    let file = rig.fake.add_file("x.gguf", &b"x"[..]);
    assert!(rig.url(&file, None).await.unwrap().files[0].headers.is_empty());
    assert!(
        rig.fake
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    assert!(rig.fake.leaks().is_empty());
}

#[tokio::test]
async fn names_of_the_hub_cannot_choose_paths() {
    let rig = Rig::new().await;
    for repo in [
        "",
        "tiny",
        "../tiny",
        "o/..",
        "./tiny",
        "o/tiny/../..",
        "o\\x/tiny",
        "o/ti ny",
        "o/nul",
        "datasets/o/tiny",
        "https://elsewhere.example/o/tiny",
        "https://user:secret@huggingface.co/o/tiny",
    ] {
        let error = rig.hub(repo, None).await.unwrap_err();
        assert!(matches!(error, DownloadError::InvalidName(_)), "{repo}: {error:?}");
    }
    assert!(rig.fake.requests().is_empty());
    // A listing is a stranger's text too.
    for path in ["..\\evil.gguf", "a/..gguf/.hidden.gguf", "con.gguf", "x\u{0}.gguf"] {
        rig.fake.add_hub_repo("o/evil", HubRepo::new().lfs(path, &b"x"[..]));
        let error = rig.hub("o/evil", None).await.unwrap_err();
        assert!(matches!(error, DownloadError::InvalidName(_)), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn search_and_what_a_repository_offers() {
    let rig = Rig::new().await;
    let repo = HubRepo::new()
        .lfs("x-Q4_K_M.gguf", &b"1234"[..])
        .lfs("x-Q8_0.gguf", &b"12345678"[..])
        .lfs("mmproj-F16.gguf", &b"12"[..]);
    rig.fake.add_hub_repo("o/Vision-GGUF", repo);
    rig.fake.add_hub_repo("o/other", HubRepo::new());
    let found = hub::search(&rig.origin, "vision", 10).await.unwrap();
    assert_eq!(
        found.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(),
        ["o/Vision-GGUF"]
    );
    let options = hub::options(&rig.origin, "o/Vision-GGUF").await.unwrap();
    let shown: Vec<_> = options
        .iter()
        .map(|o| (o.quantization.as_deref(), o.size, o.recommended))
        .collect();
    assert_eq!(shown, [(Some("Q4_K_M"), 6, true), (Some("Q8_0"), 10, false)]);
}
