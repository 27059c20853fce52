//! A model entry for the tests of this crate.

use domain::{Capability, EngineKind, LaunchOptions, ModelEntry, ModelFacts, ModelSource};

/// A model `acme/test-model` that can do these things, with no header facts.
pub(crate) fn entry(capabilities: &[Capability]) -> ModelEntry {
    ModelEntry {
        key: "acme/test-model".into(),
        slug: "acme-test-model".into(),
        engine: EngineKind::LlamaServer,
        source: ModelSource::Folder,
        path: "/models/test model.gguf".into(),
        parts: Vec::new(),
        mmproj: None,
        size: 1 << 20,
        modified: 0,
        publisher: "acme".into(),
        indexed_path: "acme/test-model/test model.gguf".into(),
        display_name: "Test".into(),
        description: None,
        digest: String::new(),
        aliases: Vec::new(),
        capabilities: capabilities.iter().copied().collect(),
        facts: ModelFacts::default(),
        launch: LaunchOptions::default(),
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    }
}
