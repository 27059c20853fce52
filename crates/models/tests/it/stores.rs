//! Stores in Ollama's layout: other programs', served in place, and ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use domain::chat::Message;
use domain::{Capability, ModelSource};
use gguf::craft::Craft;
use models::Registry;
use ollama_store::{Access, Digest, Layer, Manifest, Name, Store, media};

use crate::support::{Library, fixtures, keys, resolve, until};

struct Made {
    store: Store,
    config: Layer,
}

impl Made {
    fn new(root: &Path) -> Self {
        let store = Store::open(root, Access::Write).unwrap();
        let config = store.put_layer(media::CONFIG, br#"{"model_format":"gguf"}"#).unwrap();
        Self { store, config }
    }

    fn layer(&self, kind: &str, contents: &[u8]) -> Layer {
        self.store.put_layer(kind, contents).unwrap()
    }

    fn name(&self, name: &str, layers: Vec<Layer>) -> Digest {
        let bytes = Manifest::new(self.config.clone(), layers).to_bytes();
        self.store.write_manifest(&Name::parse(name).unwrap(), &bytes).unwrap();
        Digest::of(&bytes)
    }
}

/// Every path below a folder with its size, time and permissions.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let facts = entry.metadata().unwrap();
            found.insert(entry.path(), (facts.len(), facts.modified().unwrap()));
            if facts.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}

fn problems(registry: &Registry) -> Vec<String> {
    registry.problems().into_iter().map(|problem| problem.reason).collect()
}

#[tokio::test]
async fn a_foreign_store_is_served_in_place_without_a_byte_written() {
    let mut library = Library::new();
    let root = library.home.path().join("foreign");
    let made = Made::new(&root);
    let weights = std::fs::read(fixtures().join("tiny-chat.gguf")).unwrap();
    let weights = made.layer(media::MODEL, &weights);
    let plain = made.name("tiny", vec![weights.clone()]);
    made.name(
        "user/pirate:1b",
        vec![
            Layer {
                from: Some("tiny:latest".into()),
                ..weights.clone()
            },
            made.layer(media::PROJECTOR, &Craft::projector(64).build()),
            made.layer(media::SYSTEM, b"Arr."),
            made.layer(media::TEMPLATE, b"{{ .Prompt }}{{ .Suffix }}"),
            made.layer(media::PARAMS, br#"{"num_ctx": 512, "stop": ["a"], "temperature": 0}"#),
            made.layer(media::MESSAGES, br#"[{"role":"user","content":"hi"}]"#),
            made.layer(media::LICENSE, b"CC0"),
            made.layer(media::LICENSE, b"and more"),
        ],
    );
    made.name("hf.co/Ann/Repo:Q4_K_M", vec![weights]);
    made.name("safe", vec![made.layer(media::TENSOR, b"x")]);
    let remote = made.layer(media::CONFIG, br#"{"remote_host":"https://ollama.com"}"#);
    made.store
        .write_manifest(
            &Name::parse("far:cloud").unwrap(),
            &Manifest::new(remote, vec![]).to_bytes(),
        )
        .unwrap();
    std::fs::write(root.join("blobs/sha256-partial"), "x").unwrap();
    let gone = made.layer(media::MODEL, b"to be lost");
    made.name("lost", vec![gone.clone()]);
    std::fs::remove_file(made.store.blob_path(&gone.digest)).unwrap();
    std::fs::write(root.join("manifests/.DS_Store"), "x").unwrap();
    // What a store of another program does not have.
    std::fs::remove_dir(root.join("tmp")).unwrap();

    let before = tree(&root);
    library.settings.other_stores = vec![root.clone(), library.home.path().join("not-there")];
    let registry = library.open();
    assert_eq!(keys(&registry), ["hf.co/Ann/Repo:Q4_K_M", "tiny", "user/pirate:1b"]);
    let catalog = registry.catalog();
    let entry = catalog.resolve("TINY:latest").unwrap();
    assert_eq!(entry.digest, plain.hex());
    assert_eq!(entry.source, ModelSource::OllamaStore);
    assert!(entry.can(Capability::Chat) && entry.facts.context_length.is_some());
    assert_eq!(entry.size, 1_798_016 + 23);
    let pirate = catalog.resolve("registry.ollama.ai/user/pirate:1b").unwrap();
    assert!(pirate.mmproj.is_some() && pirate.can(Capability::Insert));
    assert_eq!(pirate.launch.context, Some(512));
    let profile = &pirate.profile;
    assert_eq!(profile.system.as_deref(), Some("Arr."));
    assert_eq!(profile.license, ["CC0", "and more"]);
    assert_eq!(profile.parameters["stop"][0], "a");
    assert_eq!(profile.messages, [Message::text(domain::chat::Role::User, "hi")]);
    assert_eq!(profile.parent.as_deref(), Some("tiny:latest"));
    for (name, key) in [
        ("hf.co/ann/repo:q4_k_m", Some("hf.co/Ann/Repo:Q4_K_M")),
        ("huggingface.co/Ann/Repo:Q4_K_M", Some("hf.co/Ann/Repo:Q4_K_M")),
        ("user/pirate", None),
        ("user/pirate:latest", None),
        ("tiny:3b", None),
        ("user/pirate/1b.gguf", Some("user/pirate:1b")),
    ] {
        assert_eq!(resolve(&registry, name).as_deref(), key, "{name}");
    }
    let mut reasons = problems(&registry);
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "the stored model 'far:cloud' runs on https://ollama.com and has no weights here",
            "the stored model 'lost:latest' is incomplete: one of its blobs is missing",
            "the stored model 'safe:latest' is in safetensors form, which the engine cannot load",
        ]
    );
    assert!(!models::details(&entry, true).unwrap().tensors.is_empty());
    registry.rescan().await;
    registry.shutdown().await;
    assert_eq!(tree(&root), before, "another program's store was touched");
}

#[test]
fn a_model_that_cannot_be_read_whole_is_a_problem_and_not_half_a_model() {
    let mut library = Library::new();
    let root = library.home.path().join("own");
    let made = Made::new(&root);
    let weights = made.layer(media::MODEL, &Craft::model("m").build());
    made.name("fine", vec![weights.clone(), made.layer(media::PARAMS, b"null")]);
    for (name, kind) in [("params", media::PARAMS), ("messages", media::MESSAGES)] {
        made.name(name, vec![weights.clone(), made.layer(kind, b"{\"num_ctx\":")]);
    }
    let config = made.layer(media::CONFIG, b"no JSON");
    let bytes = Manifest::new(config, vec![weights]).to_bytes();
    made.store
        .write_manifest(&Name::parse("config").unwrap(), &bytes)
        .unwrap();
    library.settings.store = Some(root);
    let registry = library.open();
    assert_eq!(keys(&registry), ["fine"]);
    let mut reasons = problems(&registry);
    reasons.sort();
    for (reason, what) in reasons.iter().zip([
        "'config:latest' is damaged: its configuration",
        "'messages:latest' is damaged: its messages",
        "'params:latest' is damaged: its parameters",
    ]) {
        assert!(reason.contains(what), "{reasons:?}");
    }
    assert_eq!(reasons.len(), 3);
}

#[tokio::test]
async fn names_over_the_same_weights_and_launch_share_an_instance() {
    let mut library = Library::new();
    let root = library.home.path().join("own");
    let made = Made::new(&root);
    let weights = made.layer(media::MODEL, &Craft::model("m").build());
    made.name("a", vec![weights.clone()]);
    made.name("b", vec![weights.clone(), made.layer(media::SYSTEM, b"Be brief.")]);
    made.name(
        "c",
        vec![weights.clone(), made.layer(media::PARAMS, br#"{"num_ctx":64}"#)],
    );
    made.name(
        "d",
        vec![weights, made.layer(media::ADAPTER, &Craft::model("lora").build())],
    );
    library.settings.store = Some(root);
    let registry = library.open();
    let runs_as: Vec<(String, String)> = registry
        .catalog()
        .entries()
        .iter()
        .map(|entry| (entry.key.to_string(), entry.instance_key().to_string()))
        .collect();
    let own = |name: &str| (name.to_owned(), name.to_owned());
    assert_eq!(
        runs_as,
        [own("a"), ("b".to_owned(), "a".to_owned()), own("c"), own("d")]
    );
    assert_eq!(registry.catalog().entries()[3].profile.adapters.len(), 1);
}

#[test]
fn a_given_name_goes_before_names_made_from_files_and_our_store_before_others() {
    let mut library = Library::new();
    library.write("x.gguf", &Craft::model("file"));
    let (own, other) = (library.home.path().join("own"), library.home.path().join("other"));
    let made = Made::new(&own);
    let digest = made.name("x", vec![made.layer(media::MODEL, &Craft::model("stored").build())]);
    let made = Made::new(&other);
    made.name("X", vec![made.layer(media::MODEL, &Craft::model("foreign").build())]);
    made.name("y", vec![made.layer(media::MODEL, &Craft::model("foreign").build())]);
    library.settings.store = Some(own);
    library.settings.other_stores = vec![other];
    let registry = library.open();
    assert_eq!(keys(&registry), ["x", "x-2", "y"]);
    let entry = registry.catalog().resolve("x").unwrap();
    assert_eq!(
        (entry.digest.clone(), entry.source),
        (digest.hex(), ModelSource::OwnStore)
    );
    assert_eq!(entry.display_name, "x:latest");
}

#[test]
fn split_sets_are_found_under_names_that_show_their_numbers() {
    let mut library = Library::new();
    let root = library.home.path().join("own");
    let made = Made::new(&root);
    let part = |number: u32| {
        let craft = Craft::model("big")
            .raw("split.no", 2, &(number as u16).to_le_bytes())
            .raw("split.count", 2, &2_u16.to_le_bytes());
        made.layer(media::MODEL, &craft.build())
    };
    made.name("hf.co/a/big:Q4_K_M", vec![part(0), part(1)]);
    library.settings.store = Some(root);
    let registry = library.open();
    assert_eq!(problems(&registry), Vec::<String>::new());
    let entry = registry.catalog().resolve("hf.co/a/big:Q4_K_M").unwrap();
    assert!(entry.path.ends_with("model-00001-of-00002.gguf"), "{:?}", entry.path);
    assert_eq!(entry.parts.len(), 1);
    assert!(entry.files().all(|file| file.is_file()));
}

#[tokio::test]
async fn new_and_deleted_models_are_noticed() {
    let mut library = Library::new();
    let root = library.home.path().join("own");
    library.settings.store = Some(root.clone());
    library.settings.watch = true;
    let mut events = library.bus.subscribe();
    let registry = library.open();
    let made = Made::new(&root);
    made.name("later", vec![made.layer(media::MODEL, &Craft::model("m").build())]);
    until(&mut events, "the new model", || resolve(&registry, "later").is_some()).await;
    made.store.delete(&Name::parse("later").unwrap()).unwrap();
    until(&mut events, "its end", || resolve(&registry, "later").is_none()).await;
}
