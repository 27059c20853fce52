use std::time::Duration;

use downloads::DownloadError;
use testkit::{OriginFault, OriginLayer};

use crate::rig::{Rig, said};

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
        assert_eq!(first.sha256.unwrap().to_string(), model.layers[0]);
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
