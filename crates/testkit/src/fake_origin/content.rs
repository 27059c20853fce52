use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// One layer of a model in the registry.
#[derive(Debug, Clone)]
pub struct OriginLayer {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

impl OriginLayer {
    /// A layer `application/vnd.ollama.image.<kind>`: `model`, `template`, `params`, `license`, …
    pub fn new(kind: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            media_type: format!("application/vnd.ollama.image.{kind}"),
            bytes: bytes.into(),
        }
    }

    /// The weights.
    pub fn model(bytes: impl Into<Bytes>) -> Self {
        Self::new("model", bytes)
    }
}

/// What the registry made of a model.
#[derive(Debug, Clone)]
pub struct OriginModel {
    /// The manifest as it is served.
    pub manifest: Bytes,
    /// `sha256:<hex>` of the config.
    pub config: String,
    /// `sha256:<hex>` of each layer, in order.
    pub layers: Vec<String>,
}

/// One file of a hub repository.
#[derive(Debug, Clone)]
pub struct HubFile {
    /// Content.
    pub bytes: Bytes,
    /// In large-file storage: the hub redirects to its content network and publishes the SHA-256.
    pub lfs: bool,
}

/// A hub repository.
#[derive(Debug, Clone, Default)]
pub struct HubRepo {
    /// Path in the repository → file.
    pub files: BTreeMap<String, HubFile>,
    /// Files need a token that has accepted the licence; the listing is public.
    pub gated: bool,
    /// Without the token the hub says that there is no such repository.
    pub private: bool,
    /// The token that opens it.
    pub token: Option<String>,
    /// Entries per page of the listing; 0: all on one.
    pub page_size: usize,
}

impl HubRepo {
    /// An empty public repository.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file of large-file storage.
    pub fn lfs(mut self, path: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.files.insert(path.to_owned(), HubFile { bytes, lfs: true });
        self
    }

    /// Adds a file the hub serves itself.
    pub fn plain(mut self, path: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.files.insert(path.to_owned(), HubFile { bytes, lfs: false });
        self
    }

    /// Files need this token.
    pub fn gated(mut self, token: &str) -> Self {
        self.gated = true;
        self.token = Some(token.to_owned());
        self
    }

    /// Everything needs this token.
    pub fn private(mut self, token: &str) -> Self {
        self.private = true;
        self.token = Some(token.to_owned());
        self
    }

    /// The listing comes in pages of so many entries.
    pub fn paged(mut self, page_size: usize) -> Self {
        self.page_size = page_size;
        self
    }
}

/// Everything the origin has.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) files: BTreeMap<String, Bytes>,
    /// Path of the first host → digest the second host serves.
    pub(super) redirects: BTreeMap<String, String>,
    /// `sha256:<hex>` → bytes.
    pub(super) blobs: BTreeMap<String, Bytes>,
    /// (`namespace/model`, tag) → manifest.
    pub(super) manifests: BTreeMap<(String, String), Bytes>,
    /// Upload id → bytes so far.
    pub(super) uploads: BTreeMap<String, Vec<u8>>,
    pub(super) repos: BTreeMap<String, HubRepo>,
    /// Token and realm of the registry.
    pub(super) token: Option<(String, String)>,
    pub(super) next_upload: u64,
}

impl Content {
    pub(super) fn add_blob(&mut self, bytes: Bytes) -> String {
        let digest = format!("sha256:{}", sha256(&bytes));
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    pub(super) fn add_model(&mut self, name: &str, layers: &[OriginLayer]) -> OriginModel {
        let mut digests = Vec::new();
        let mut listed = Vec::new();
        for layer in layers {
            let digest = self.add_blob(layer.bytes.clone());
            listed.push(json!({"mediaType": layer.media_type, "digest": digest, "size": layer.bytes.len()}));
            digests.push(digest);
        }
        let config = json!({
            "model_format": "gguf", "model_family": "llama", "model_families": ["llama"], "model_type": "1M",
            "file_type": "F32", "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = Bytes::from(config.to_string());
        let size = config.len();
        let config = self.add_blob(config);
        // Indented as no client would write it: whoever stores it must keep the bytes.
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config, "size": size},
            "layers": listed,
        });
        let manifest = Bytes::from(format!("{manifest:#}"));
        self.manifests.insert(key(name), manifest.clone());
        OriginModel {
            manifest,
            config,
            layers: digests,
        }
    }

    pub(super) fn manifest(&self, name: &str) -> Option<Bytes> {
        self.manifests.get(&key(name)).cloned()
    }
}

/// `[host/][namespace/]model[:tag]` → (`namespace/model`, tag).
fn key(name: &str) -> (String, String) {
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].rfind(':') {
        Some(colon) => (&name[..slash + colon], &name[slash + colon + 1..]),
        None => (name, "latest"),
    };
    let parts: Vec<&str> = path.split('/').collect();
    let path = match parts.as_slice() {
        [model] => format!("library/{model}"),
        [.., namespace, model] => format!("{namespace}/{model}"),
        [] => String::new(),
    };
    (path, tag.to_owned())
}

/// SHA-256 in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The name that git gives to a file's content: what the hub publishes of files outside large-file storage.
pub(super) fn git_sha1(bytes: &[u8]) -> String {
    let head = format!("blob {}\0", bytes.len());
    hex(&Sha1::new().chain_update(head).chain_update(bytes).finalize())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
