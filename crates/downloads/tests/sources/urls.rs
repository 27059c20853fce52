use downloads::DownloadError;
use testkit::OriginLayer;

use crate::rig::{Rig, said};

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
