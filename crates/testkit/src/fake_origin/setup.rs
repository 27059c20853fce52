use std::io;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::{HubFile, HubRepo, OriginLayer};
use super::fault::OriginFault;
use super::{Shared, lock};

/// What to offer, as JSON: for tests in other languages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginSetup {
    files: Vec<File>,
    models: Vec<Model>,
    repos: Vec<Repo>,
    faults: Vec<Planned>,
    registry_token: Option<String>,
}

/// A file's content: of a file on disk (`from`) or given (`text`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    From(std::path::PathBuf),
    Text(String),
}

impl Source {
    fn read(self) -> io::Result<Bytes> {
        match self {
            Self::From(path) => Ok(std::fs::read(path)?.into()),
            Self::Text(text) => Ok(text.into()),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct File {
    path: String,
    #[serde(flatten)]
    source: Source,
    #[serde(default)]
    lfs: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Layer {
    kind: String,
    #[serde(flatten)]
    source: Source,
}

#[derive(Debug, Clone, Deserialize)]
struct Model {
    name: String,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, Deserialize)]
struct Repo {
    #[serde(rename = "repo")]
    name: String,
    files: Vec<File>,
    #[serde(default)]
    gated: bool,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    token: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Planned {
    path: String,
    #[serde(default)]
    times: Option<u32>,
    fault: OriginFault,
}

impl OriginSetup {
    pub(super) fn apply(self, shared: &Shared) -> io::Result<()> {
        for file in self.files {
            let bytes = file.source.read()?;
            let path = format!("/{}", file.path.trim_start_matches('/'));
            lock(&shared.content).files.insert(path, bytes);
        }
        for model in self.models {
            let layers = model
                .layers
                .into_iter()
                .map(|layer| Ok(OriginLayer::new(&layer.kind, layer.source.read()?)))
                .collect::<io::Result<Vec<_>>>()?;
            lock(&shared.content).add_model(&model.name, &layers);
        }
        for repo in self.repos {
            let mut made = HubRepo {
                gated: repo.gated,
                private: repo.private,
                token: repo.token,
                ..HubRepo::default()
            };
            for file in repo.files {
                let bytes = file.source.read()?;
                made.files.insert(file.path, HubFile { bytes, lfs: file.lfs });
            }
            lock(&shared.content).repos.insert(repo.name, made);
        }
        for planned in self.faults {
            lock(&shared.faults).add(&planned.path, planned.times, planned.fault);
        }
        if let Some(token) = self.registry_token {
            lock(&shared.content).token = Some((token, format!("http://{}/token", shared.origin)));
        }
        Ok(())
    }
}

/// What there is, for whoever set it up.
pub(super) fn summary(shared: &Shared) -> Value {
    let content = lock(&shared.content);
    let models: Vec<String> = content
        .manifests
        .keys()
        .map(|(name, tag)| format!("{name}:{tag}"))
        .collect();
    let files: Vec<&String> = content.files.keys().chain(content.redirects.keys()).collect();
    let repos: Vec<&String> = content.repos.keys().collect();
    json!({"files": files, "models": models, "repos": repos})
}
