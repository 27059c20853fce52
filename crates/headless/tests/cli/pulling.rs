//! `pull` and `rm` of speech models, against a hub of our own.

use serde_json::json;
use testkit::{FakeOrigin, HubRepo, WhisperCraft};

use crate::kit::{Home, json, stderr, stdout};

#[test]
fn a_speech_model_by_its_size() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (home, origin) = (Home::new(), runtime.block_on(FakeOrigin::start()).unwrap());
    let files = WhisperCraft::default().files();
    let repo = files.into_iter().fold(HubRepo::new(), |repo, (name, contents)| {
        if name == "model.bin" {
            repo.lfs(name, contents)
        } else {
            repo.plain(name, contents)
        }
    });
    origin.add_hub_repo("Systran/faster-whisper-base", repo.clone());
    origin.add_hub_repo("me/own-ct2", repo.clone());
    origin.add_hub_repo("me/whisper-mine", repo);
    home.write_config(
        &json!({ "downloads": { "huggingface_base_url": origin.url(), "allow_private_hosts": true } }).to_string(),
    );
    let server = home.serve(&[]);
    let pulled = server.verb(&["pull", "base"]);
    assert_eq!(pulled.status.code(), Some(0), "{}", stderr(&pulled));
    assert_eq!(
        stdout(&pulled),
        "base is here; `llama-runner transcribe --model base FILE` writes down what is said\n"
    );
    let shown = json(&server.verb(&["show", "Systran/faster-whisper-base", "--json"]));
    assert_eq!(shown["model"]["key"], "whisper-base", "{shown}");
    assert_eq!(shown["model"]["display_name"], "Whisper base");

    // Any converted repository, by the hub's name.
    let pulled = server.verb(&["pull", "hf.co/me/own-ct2"]);
    assert!(
        stdout(&pulled).contains("llama-runner transcribe"),
        "{}",
        stderr(&pulled)
    );
    let pulled = server.verb(&["pull", "me/whisper-mine"]);
    assert!(
        stdout(&pulled).contains("llama-runner transcribe"),
        "{}",
        stderr(&pulled)
    );
    let unknown = server.verb(&["pull", "whisper-tiny"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("the hub has no repository Systran/faster-whisper-tiny"),
        "{}",
        stderr(&unknown)
    );

    let removed = server.verb(&["rm", "base", "own-ct2", "me/whisper-mine"]);
    assert_eq!(removed.status.code(), Some(0), "{}", stderr(&removed));
    let listed = stdout(&server.verb(&["list"]));
    assert!(!listed.contains("whisper") && !listed.contains("own-ct2"), "{listed}");
}
