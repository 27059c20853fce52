//! Further instances of models: known by name everywhere, in no list, and preferred where a name leaves a choice.

use std::sync::Arc;

use domain::{ModelEntry, ModelKey};
use gguf::craft::Craft;
use models::Registry;

use crate::support::{Library, keys, resolve};

fn write(library: &Library, path: &str, file_type: u32) {
    let craft = Craft::new()
        .text("general.architecture", "llama")
        .uint("llama.block_count", 1)
        .uint("general.file_type", file_type)
        .tensor("w", &[256], 0);
    library.write(path, &craft);
}

fn further(registry: &Registry, model: &str, identifier: &str) -> Arc<ModelEntry> {
    let model = registry.catalog().resolve(model).unwrap();
    ModelEntry {
        key: ModelKey::from(identifier),
        instance_of: Some(model.key.clone()),
        ..ModelEntry::clone(&model)
    }
    .shared()
}

#[tokio::test(flavor = "multi_thread")]
async fn known_by_name_and_in_no_list() {
    let library = Library::new();
    write(&library, "pub/a-GGUF/a-Q4_0.gguf", 2);
    write(&library, "pub/other-GGUF/other-Q8_0.gguf", 7);
    let registry = library.open();
    assert!(registry.add_instance(further(&registry, "a", "a:2")));
    assert!(registry.add_instance(further(&registry, "a", "Mine")));
    // Also in another case and with the tag that clients add, and every name of another model.
    for taken in [
        "a",
        "a:2",
        "mine",
        "A",
        "a:latest",
        "Other",
        "other:Q8_0",
        "PUB/Other-GGUF",
        "other:latest",
    ] {
        assert!(!registry.add_instance(further(&registry, "a", taken)), "{taken}");
    }
    assert_eq!(keys(&registry), ["a", "other"]);
    for (name, wanted) in [
        ("a:2", "a:2"),
        ("Mine", "Mine"),
        ("mine:latest", "Mine"),
        ("a", "a"),
        ("a:latest", "a"),
    ] {
        assert_eq!(resolve(&registry, name).as_deref(), Some(wanted), "{name}");
    }
    // A scan keeps them.
    write(&library, "pub/b-GGUF/b-Q4_0.gguf", 2);
    registry.rescan().await;
    assert_eq!(keys(&registry), ["a", "b", "other"]);
    assert_eq!(resolve(&registry, "a:2").as_deref(), Some("a:2"));
    assert!(registry.catalog().get(&ModelKey::from("Mine")).is_some());
    assert!(registry.remove_instance(&ModelKey::from("a:2")));
    assert!(!registry.remove_instance(&ModelKey::from("a:2")));
    assert_eq!(registry.catalog().instances().count(), 1);
    assert_eq!(resolve(&registry, "a:2"), None);
    registry.shutdown().await;
}

#[test]
fn loaded_ones_are_preferred() {
    let library = Library::new();
    write(&library, "pub/m-GGUF/m-Q4_K_M.gguf", 15);
    write(&library, "pub/m-GGUF/m-Q8_0.gguf", 7);
    write(&library, "pub/other-GGUF/other-Q8_0.gguf", 7);
    let registry = library.open();
    let find = |name: &str, loaded: &[&str]| {
        let found = registry
            .catalog()
            .resolve_loaded(name, |entry| loaded.contains(&entry.key.as_str()));
        found.map(|entry| entry.key.to_string())
    };
    for (name, loaded, wanted) in [
        ("m", vec![], "m@q4_k_m"),
        ("m", vec!["m@q8_0"], "m@q8_0"),
        ("m", vec!["m@q8_0", "m@q4_k_m"], "m@q4_k_m"),
        ("PUB/m", vec!["m@q8_0"], "m@q8_0"),
        ("pub/m-gguf", vec!["m@q8_0"], "m@q8_0"),
        // A name that leaves no choice.
        ("m@q4_k_m", vec!["m@q8_0"], "m@q4_k_m"),
        ("m:Q4_K_M", vec!["m@q8_0"], "m@q4_k_m"),
        ("pub/m", vec!["other"], "m@q4_k_m"),
    ] {
        assert_eq!(find(name, &loaded).as_deref(), Some(wanted), "{name} with {loaded:?}");
    }
    assert!(registry.add_instance(further(&registry, "m@q8_0", "mine")));
    assert_eq!(find("m@q8_0", &["mine"]).as_deref(), Some("mine"));
    assert_eq!(find("m@q8_0", &["mine", "m@q8_0"]).as_deref(), Some("m@q8_0"));
    assert_eq!(find("m", &["mine"]).as_deref(), Some("mine"));
    assert_eq!(find("mine", &[]).as_deref(), Some("mine"));
    assert_eq!(find("nothing", &["mine"]), None);
}
