//! What the three kinds of origin say about a name, asked of the fake origin.
#![expect(clippy::unwrap_used, reason = "test code may panic")]

use std::sync::Arc;
use std::time::Duration;

use downloads::http::Http;
use downloads::sources::{hub, resolve};
use downloads::{DownloadError, DownloadSettings, Origin, Plan, Source, Tuning};
use ollama_store::{Access, Digest, Store};
use testkit::{FakeOrigin, HubRepo, OriginFault, OriginLayer};

struct Rig {
    fake: FakeOrigin,
    origin: Origin,
    _home: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut DownloadSettings)) -> Self {
        let fake = FakeOrigin::start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut settings = DownloadSettings {
            models_dir: home.path().join("models"),
            ollama_store: home.path().join("ollama"),
            max_parallel: 3,
            bandwidth_limit: None,
            huggingface_base_url: fake.url(),
            ollama_registry_base_url: fake.url(),
            allow_private_hosts: true,
            resume_on_start: false,
            hub_token: None,
            tuning: Tuning {
                back_off: Duration::from_millis(1),
                back_off_max: Duration::from_millis(5),
                ..Tuning::default()
            },
        };
        change(&mut settings);
        let origin = Origin {
            http: Http::new(&settings),
            ollama_store: Store::open(&settings.ollama_store, Access::Write).unwrap(),
            settings: Arc::new(settings),
        };
        Self {
            fake,
            origin,
            _home: home,
        }
    }

    async fn ollama(&self, name: &str) -> Result<Plan, DownloadError> {
        self.ollama_with(name, false).await
    }

    async fn ollama_with(&self, name: &str, insecure: bool) -> Result<Plan, DownloadError> {
        let name = name.to_owned();
        resolve(&Source::Ollama { name, insecure }, &self.origin).await
    }

    async fn hub(&self, repo: &str, what: Option<&str>) -> Result<Plan, DownloadError> {
        let source = Source::Hub {
            repo: repo.to_owned(),
            file_or_quant: what.map(str::to_owned),
        };
        resolve(&source, &self.origin).await
    }

    async fn url(&self, url: &str, file_name: Option<&str>) -> Result<Plan, DownloadError> {
        let source = Source::Url {
            url: url.to_owned(),
            file_name: file_name.map(str::to_owned),
        };
        resolve(&source, &self.origin).await
    }

    /// Files relative to the plan's root.
    fn paths(plan: &Plan) -> Vec<String> {
        let below = |path: &std::path::Path| path.strip_prefix(&plan.root).unwrap().to_string_lossy().into_owned();
        plan.files.iter().map(|file| below(&file.path)).collect()
    }
}

fn said<T: std::fmt::Debug>(result: Result<T, DownloadError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn a_registrys_model_is_its_layers_and_the_config() {
    let rig = Rig::new().await;
    let weights = &b"weights"[..];
    let layers = [
        OriginLayer::model(weights),
        OriginLayer::new("license", &b"mine"[..]),
        OriginLayer::new("license", &b"mine"[..]),
    ];
    let model = rig.fake.add_ollama_model("me/tiny:q8", &layers);
    for (name, insecure) in [
        ("me/tiny:q8".to_owned(), false),
        (format!("{}/me/tiny:q8", rig.fake.host()), true),
    ] {
        let plan = rig.ollama_with(&name, insecure).await.unwrap();
        assert_eq!(plan.name, name);
        assert!(!plan.already_present);
        let labels: Vec<&str> = plan.files.iter().map(|file| file.label.as_str()).collect();
        // What two layers share comes once.
        assert_eq!(labels, [model.layers[0].as_str(), &model.layers[1], &model.config]);
        let first = &plan.files[0];
        assert_eq!(first.size, Some(7));
        assert_eq!(
            first.sha256.as_ref().unwrap().as_str(),
            &model.layers[0]["sha256:".len()..]
        );
        assert_eq!(first.url.path(), format!("/v2/me/tiny/blobs/{}", model.layers[0]));
        assert_eq!(
            Rig::paths(&plan)[0],
            format!("blobs/{}", model.layers[0].replace(':', "-"))
        );
    }
    let asked = &rig.fake.requests_to("GET", "/v2/me/tiny/manifests/q8")[0];
    assert_eq!(
        asked.header("accept"),
        Some("application/vnd.docker.distribution.manifest.v2+json")
    );
    assert!(
        asked
            .header("user-agent")
            .unwrap()
            .starts_with(&format!("ollama/{} (", domain::OLLAMA_VERSION))
    );
}

#[tokio::test]
async fn a_model_that_is_there_is_recognised_by_its_manifest() {
    let rig = Rig::new().await;
    let model = rig
        .fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    let store = &rig.origin.ollama_store;
    for digest in [&model.layers[0], &model.config] {
        let bytes = rig.fake.blob(digest).unwrap();
        store.put_layer("any", &bytes).unwrap();
    }
    assert!(!rig.ollama("tiny").await.unwrap().already_present);
    let name = ollama_store::Name::parse("tiny").unwrap();
    store.write_manifest(&name, &model.manifest).unwrap();
    assert!(rig.ollama("library/tiny:latest").await.unwrap().already_present);
    rig.fake.add_ollama_model("tiny", &[OriginLayer::model(&b"newer"[..])]);
    assert!(!rig.ollama("tiny").await.unwrap().already_present);
}

#[tokio::test]
async fn a_pulls_blobs_are_held_until_it_ends() {
    let rig = Rig::new().await;
    let model = rig
        .fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    let plan = rig.ollama("tiny").await.unwrap();
    let store = &rig.origin.ollama_store;
    store.put_layer("any", b"weights").unwrap();
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 0);
    drop(plan);
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 7);
    assert!(!store.has_blob(&model.layers[0].parse().unwrap()));
}

#[tokio::test]
async fn registries_refuse_in_ollamas_words() {
    let rig = Rig::new().await;
    rig.fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    assert_eq!(
        said(rig.ollama("none").await),
        "pull model manifest: file does not exist"
    );
    assert_eq!(said(rig.ollama("a/b/c/d").await), "invalid model name");
    assert_eq!(said(rig.ollama("../x").await), "invalid model name");
    let plain = format!("http://{}/library/tiny", rig.fake.host());
    assert_eq!(said(rig.ollama(&plain).await), "insecure protocol http");
    let once = |status, body: &str| {
        let (retry_after, body) = (None, body.to_owned());
        let fault = OriginFault::Status {
            status,
            retry_after,
            body,
        };
        rig.fake.fault_times("/manifests/", 1, fault);
    };
    let text = "The model you are attempting to pull requires a newer version of Ollama.\n\nPlease download it.";
    once(412, text);
    assert_eq!(
        said(rig.ollama("tiny").await),
        format!("pull model manifest: 412: {text}")
    );
    once(500, "");
    assert_eq!(
        said(rig.ollama("tiny").await),
        "pull model manifest: 500 Internal Server Error"
    );
    rig.fake.fault_times("/manifests/", 1, OriginFault::LoginPage);
    assert_eq!(
        said(rig.ollama("tiny").await),
        "pull model manifest: the registry's answer is not a model manifest"
    );
    rig.fake
        .add_ollama_model("st", &[OriginLayer::new("tensor", &b"x"[..])]);
    assert!(said(rig.ollama("st").await).contains("safetensors"));
}

#[tokio::test]
async fn manifests_cannot_choose_paths() {
    let rig = Rig::new().await;
    for digest in [
        "sha256:../../../../etc/passwd",
        "sha256-../x",
        "../../x",
        "sha256:abc",
        "",
    ] {
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{digest}","size":1}},"layers":[]}}"#);
        rig.fake.clear_faults();
        rig.fake.fault(
            "/manifests/",
            OriginFault::Status {
                status: 200,
                retry_after: None,
                body: manifest,
            },
        );
        assert_eq!(
            said(rig.ollama("evil").await),
            "pull model manifest: the registry's answer is not a model manifest",
            "{digest}"
        );
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let rig = Rig::new().await;
    rig.fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    for status in [429, 503] {
        let fault = OriginFault::Status {
            status,
            retry_after: Some("0".into()),
            body: String::new(),
        };
        rig.fake.fault_times("/manifests/", 2, fault);
    }
    rig.ollama("tiny").await.unwrap();
    assert_eq!(rig.fake.requests_to("GET", "/manifests/").len(), 5);
}

#[tokio::test]
async fn a_token_comes_from_the_registry_itself_or_not_at_all() {
    let rig = Rig::new().await;
    rig.fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    rig.fake.require_token("t0", None);
    let plan = rig.ollama("tiny").await.unwrap();
    let asked = &rig.fake.requests_to("GET", "/token")[0];
    assert_eq!(
        asked.query.as_deref(),
        Some("service=fake-origin&scope=repository%3Alibrary%2Ftiny%3Apull")
    );
    assert_eq!(plan.files[0].headers["authorization"], "Bearer t0");
    assert!(plan.files[0].headers["authorization"].is_sensitive());
    assert!(!format!("{plan:?}").contains("t0"));

    // Another host, and another port of the same host: both are strangers.
    for realm in [
        "http://127.0.0.2:1/token".to_owned(),
        format!("{}/token", rig.fake.cdn_url()),
    ] {
        rig.fake.require_token("t1", Some(&realm));
        rig.fake.clear_requests();
        let refused = said(rig.ollama("tiny").await);
        assert!(
            refused.starts_with("pull model manifest: realm host \"127.0.0."),
            "{refused}"
        );
        assert!(rig.fake.requests_to("GET", "/token").is_empty());
    }

    // A token that opens nothing is not fetched for ever.
    rig.fake.clear_requests();
    let realm = format!("{}/token", rig.fake.url());
    rig.fake.fault("/manifests/", OriginFault::Unauthorized { realm });
    assert_eq!(
        said(rig.ollama("tiny").await),
        "pull model manifest: unauthorized: access denied"
    );
    assert_eq!(rig.fake.requests_to("GET", "/manifests/").len(), 2);
}

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
    assert_eq!(
        plan.files[0].sha256.as_ref().unwrap().as_str(),
        Digest::of(&gguf()).hex()
    );
    assert_eq!(plan.files[0].url.path(), "/o/tiny-GGUF/resolve/main/tiny-Q4_K_M.gguf");
    assert_eq!(
        plan.files[1].sha256.as_ref().unwrap().as_str(),
        Digest::of(b"projector").hex()
    );
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
    assert_eq!(
        plan.files[0].sha256.as_ref().unwrap().as_str(),
        Digest::of(b"eight").hex()
    );
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
async fn plain_addresses() {
    let rig = Rig::new().await;
    let url = rig.fake.add_redirected_file("/dir/tiny-Q8_0.gguf", &b"weights"[..]);
    let plan = rig.url(&url, None).await.unwrap();
    assert_eq!(Rig::paths(&plan), ["127.0.0.1/tiny-Q8_0/tiny-Q8_0.gguf"]);
    assert_eq!(
        (plan.files[0].size, plan.quantization.as_deref()),
        (Some(7), Some("Q8_0"))
    );
    let named = rig.url(&url, Some("other.gguf")).await.unwrap();
    assert_eq!(Rig::paths(&named), ["127.0.0.1/other/other.gguf"]);
    rig.fake.add_file("/s/x-00001-of-00002.gguf", &b"one"[..]);
    let second = rig.fake.add_file("/s/x-00002-of-00002.gguf", &b"second"[..]);
    let set = rig.url(&second, None).await.unwrap();
    assert_eq!(
        Rig::paths(&set),
        ["127.0.0.1/x/x-00001-of-00002.gguf", "127.0.0.1/x/x-00002-of-00002.gguf"]
    );
    assert_eq!(set.files[1].size, Some(6));

    let at = |path: &str| format!("{}{path}", rig.fake.url());
    assert_eq!(said(rig.url(&at("/none.gguf"), None).await), "File not found on server");
    assert!(said(rig.url(&at("/x.zip"), None).await).contains("is not a GGUF file"));
    for (url, name) in [
        (at("/x.gguf"), Some("../x.gguf")),
        (at("/x.gguf"), Some("C:\\x.gguf")),
        (at("/x.gguf"), Some("nul.gguf")),
        (at("/..%2f..%2fx.gguf"), None),
        (at("/%00.gguf"), None),
        ("file:///etc/passwd".into(), None),
        ("http://me:secret@127.0.0.1/x.gguf".into(), None),
        ("x.gguf".into(), None),
    ] {
        let error = rig.url(&url, name).await.unwrap_err();
        assert!(matches!(error, DownloadError::InvalidName(_)), "{url}: {error:?}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn private_addresses_are_refused_unless_configured() {
    let rig = Rig::with(|settings| settings.allow_private_hosts = false).await;
    // The configured addresses themselves are the user's choice.
    rig.fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    rig.ollama("tiny").await.unwrap();
    rig.fake.clear_requests();
    for name in ["127.0.0.2/a/b", "localhost/a/b", "10.0.0.1/a/b"] {
        let error = rig.ollama_with(name, true).await.unwrap_err();
        assert!(matches!(error, DownloadError::Refused(_)), "{name}: {error:?}");
    }
    let error = rig
        .url(&format!("{}/x.gguf", rig.fake.cdn_url()), None)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Refused(_)), "{error:?}");
    assert!(rig.fake.requests().is_empty());
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

#[tokio::test]
async fn https_in_a_name_is_meant() {
    let rig = Rig::new().await;
    rig.fake
        .add_ollama_model("tiny", &[OriginLayer::model(&b"weights"[..])]);
    let name = |scheme: &str| format!("{scheme}{}/library/tiny", rig.fake.host());
    rig.ollama_with(&name("http://"), true).await.unwrap();
    // The fake origin speaks no TLS.
    let error = rig.ollama_with(&name("https://"), true).await.unwrap_err();
    assert!(matches!(error, DownloadError::Network(_)), "{error:?}");
    let error = rig.ollama_with(&name(""), false).await.unwrap_err();
    assert!(matches!(error, DownloadError::Network(_)), "{error:?}");
}
