//! Names: which keys a set of files gets, and which model a caller's name means.

use gguf::craft::Craft;
use proptest::prelude::*;

use crate::support::{Library, keys, resolve};

#[test]
fn names_of_many_forms() {
    let library = Library::new();
    for (path, file_type) in [
        (
            "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0.gguf",
            7,
        ),
        (
            "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M.gguf",
            15,
        ),
        (
            "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-IQ2_XXS.gguf",
            19,
        ),
        ("ann/Dup-GGUF/dup-Q4_0.gguf", 2),
        ("bob/Dup-GGUF/dup-Q4_0.gguf", 2),
        ("My Model_v2.gguf", 17),
        ("ps.gguf", 1),
    ] {
        let craft = Craft::new()
            .text("general.architecture", "llama")
            .uint("llama.block_count", 1)
            .uint("general.file_type", file_type)
            .tensor("w", &[256], 0);
        library.write(path, &craft);
    }
    let registry = library.open();
    let llama = |quant: &str| format!("llama-3.2-1b-instruct@{quant}");
    assert_eq!(
        keys(&registry),
        [
            "ann/dup",
            "bob/dup",
            &llama("iq2_xxs"),
            &llama("q4_k_m"),
            &llama("q8_0"),
            "my-model-v2",
            "ps-model"
        ]
    );
    let q4 = llama("q4_k_m");
    let q8 = llama("q8_0");
    for (name, wanted) in [
        ("llama-3.2-1b-instruct", q4.as_str()),
        ("Llama-3.2-1B-Instruct:latest", &q4),
        ("llama-3.2-1b-instruct:Q8_0", &q8),
        ("llama-3.2-1b-instruct:q8-0", &q8),
        ("llama-3.2-1b-instruct@q8_0", &q8),
        ("llama-3.2-1b-instruct-q8_0", &q8),
        ("llama-3.2-1b-instruct-q8_0.gguf", &q8),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF", &q4),
        ("bartowski/llama-3.2-1b-instruct", &q4),
        (
            "bartowski/llama-3.2-1b-instruct-gguf/llama-3.2-1b-instruct-q8_0.gguf",
            &q8,
        ),
        ("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0", &q8),
        ("https://huggingface.co/bartowski/Llama-3.2-1B-Instruct-GGUF", &q4),
        ("registry.ollama.ai/library/llama-3.2-1b-instruct:latest", &q4),
        ("ollama.com/library/llama-3.2-1b-instruct:q8_0", &q8),
        ("dup", "ann/dup"),
        ("BOB/dup", "bob/dup"),
        ("bob/dup:q4_0", "bob/dup"),
        ("bob-dup", "bob/dup"),
        ("My Model_v2", "my-model-v2"),
        ("my_model_v2:latest", "my-model-v2"),
        ("my-model-v2:q5_k_m", "my-model-v2"),
        ("ps", "ps-model"),
        ("ps-model", "ps-model"),
    ] {
        assert_eq!(resolve(&registry, name).as_deref(), Some(wanted), "{name}");
    }
    let endless = "x".repeat(1 << 20);
    for name in [
        "",
        " ",
        ":",
        "/",
        "@",
        ":latest",
        ":local",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "llama",
        "bartowski",
        "bartowski/",
        "my-model-v2:q4_0",
        "llama-3.2-1b-instruct:q3_k_m",
        "..\\x",
        "-my-model-v2",
        "my-model-v2-",
        "..my_model_v2",
        "my_model_v2?:latest",
        "a\0b",
        "hf.co/",
        "registry.ollama.ai/library/",
        &endless,
    ] {
        assert_eq!(resolve(&registry, name), None, "{name:.40}");
    }
    for entry in registry.catalog().entries() {
        assert_eq!(resolve(&registry, &entry.slug).as_deref(), Some(entry.key.as_str()));
        assert_eq!(
            resolve(&registry, &format!("{}:latest", entry.key)).as_deref(),
            Some(entry.key.as_str())
        );
        assert!(
            entry
                .aliases
                .iter()
                .all(|name| resolve(&registry, name).as_deref() == Some(entry.key.as_str()))
        );
    }
    let entry = registry.catalog().resolve(&q8).unwrap();
    assert_eq!(entry.publisher, "bartowski");
    assert_eq!(
        entry.indexed_path,
        "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0.gguf"
    );
}

#[test]
fn the_order_of_creation_does_not_matter() {
    let names = [
        "b/x/m-Q4_0.gguf",
        "a/x/m-Q4_0.gguf",
        "m-Q4_0.gguf",
        "c/m-q4_0.gguf",
        "m-Q8_0.gguf",
        "m.Q8_0.gguf",
    ];
    let run = |order: &[&str]| {
        let library = Library::new();
        for name in order {
            library.write(name, &Craft::model("m"));
        }
        let registry = library.open();
        let path = |entry: &domain::ModelEntry| entry.path.strip_prefix(library.at("")).unwrap().to_owned();
        registry
            .catalog()
            .entries()
            .iter()
            .map(|entry| (entry.key.to_string(), path(entry)))
            .collect::<Vec<_>>()
    };
    let forward = run(&names);
    let mut backward = names;
    backward.reverse();
    assert_eq!(forward.len(), names.len());
    assert_eq!(forward, run(&backward));
}

#[test]
fn embedding_models_have_lm_studios_name_too() {
    let library = Library::new();
    library.write("nomic-Q8_0.gguf", &Craft::model("n").uint("llama.pooling_type", 1));
    library.write("chat.gguf", &Craft::model("c"));
    let registry = library.open();
    assert_eq!(resolve(&registry, "text-embedding-nomic").as_deref(), Some("nomic"));
    assert_eq!(
        resolve(&registry, "text-embedding-nomic:latest").as_deref(),
        Some("nomic")
    );
    assert_eq!(resolve(&registry, "text-embedding-chat"), None);
}

#[test]
fn any_name_is_only_compared() {
    let library = Library::new();
    for name in [
        "model-Q4_0.gguf",
        "model-Q8_0.gguf",
        "a/b/model-q4_0.gguf",
        "..gguf",
        "über größe.gguf",
    ] {
        library.write(name, &Craft::model("m"));
    }
    let catalog = library.open().catalog();
    assert_eq!(catalog.resolve("ÜBER GRÖSSE"), None);
    assert!(catalog.resolve("Über-Größe").is_some());
    for name in [":", "::", "-", "_", "...", "./", ":q4_0"] {
        assert_eq!(catalog.resolve(name).map(|entry| entry.key.to_string()), None, "{name}");
    }
    proptest!(|(name in "[ a-z/:@._ü-]{0,24}|\\PC{0,60}")| {
        let found = catalog.resolve(&name);
        prop_assert!(found.is_none_or(|entry| catalog.get(&entry.key).is_some()));
        catalog.nearest(&name);
    });
}
