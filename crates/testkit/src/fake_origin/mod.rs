//! A model origin on loopback: the Ollama registry, the Hugging Face hub and plain files, on two hosts (the origin and its
//! content network), with faults per path and a record of every request.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use testkit::{FakeOrigin, OriginFault, OriginLayer};
//! let origin = FakeOrigin::start().await?;
//! let url = origin.add_file("/tiny.gguf", &b"GGUF"[..]);
//! origin.add_ollama_model("tiny", &[OriginLayer::model(&b"GGUF"[..])]);
//! origin.fault_times("/tiny.gguf", 1, OriginFault::Cut { after: 2 });
//! // … download `url` …
//! assert!(origin.leaks().is_empty());
//! # Ok(()) }
//! ```

mod body;
mod content;
mod fault;
mod hub;
mod record;
mod registry;
mod serve;
mod server;
mod setup;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use content::{HubFile, HubRepo, OriginLayer, OriginModel};
pub use fault::OriginFault;
pub use record::{OriginHost, OriginRequest};
pub use setup::OriginSetup;

use content::Content;
use fault::Faults;

/// What both hosts share.
#[derive(Debug)]
struct Shared {
    origin: SocketAddr,
    cdn: SocketAddr,
    content: Mutex<Content>,
    faults: Mutex<Faults>,
    record: Mutex<Vec<OriginRequest>>,
    /// SHA-256 by address and length of the bytes, which are kept so that the address stays theirs.
    hashes: Mutex<HashMap<(usize, usize), (Bytes, String)>>,
}

impl Shared {
    /// SHA-256 in hex, computed once for the same bytes: every range of a file asks for it.
    fn sha256(&self, bytes: &Bytes) -> String {
        let key = (bytes.as_ptr() as usize, bytes.len());
        let mut hashes = lock(&self.hashes);
        let (_, hash) = hashes
            .entry(key)
            .or_insert_with(|| (bytes.clone(), content::sha256(bytes)));
        hash.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fake origin. Dropping it closes both hosts and every connection.
#[derive(Debug)]
pub struct FakeOrigin {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl FakeOrigin {
    /// Listens with two hosts on free loopback ports.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let origin = TcpListener::bind(("127.0.0.1", 0)).await?;
        let cdn = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            origin: origin.local_addr()?,
            cdn: cdn.local_addr()?,
            content: Mutex::default(),
            faults: Mutex::default(),
            record: Mutex::default(),
            hashes: Mutex::default(),
        });
        let stop = CancellationToken::new();
        server::listen(origin, OriginHost::Origin, &shared, &stop);
        server::listen(cdn, OriginHost::Cdn, &shared, &stop);
        Ok(Self {
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Base address of the first host, without a slash at the end: registry, hub and plain files.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.origin)
    }

    /// Base address of the second host, where redirects for large files go.
    pub fn cdn_url(&self) -> String {
        format!("http://{}", self.shared.cdn)
    }

    /// `127.0.0.1:<port>` of the first host, as the host part of a model name.
    pub fn host(&self) -> String {
        self.shared.origin.to_string()
    }

    /// Serves bytes at a path of the first host; replaces what was there. Returns the whole address.
    pub fn add_file(&self, path: &str, bytes: impl Into<Bytes>) -> String {
        let path = format!("/{}", path.trim_start_matches('/'));
        let url = format!("{}{path}", self.url());
        lock(&self.shared.content).files.insert(path, bytes.into());
        url
    }

    /// Like [`FakeOrigin::add_file`], but the first host answers with a redirect to the second.
    pub fn add_redirected_file(&self, path: &str, bytes: impl Into<Bytes>) -> String {
        let path = format!("/{}", path.trim_start_matches('/'));
        let url = format!("{}{path}", self.url());
        let mut content = lock(&self.shared.content);
        let digest = content.add_blob(bytes.into());
        content.redirects.insert(path, digest);
        url
    }

    /// Offers a model `[namespace/]model[:tag]` by the registry protocol; blobs redirect to the second host.
    pub fn add_ollama_model(&self, name: &str, layers: &[OriginLayer]) -> OriginModel {
        lock(&self.shared.content).add_model(name, layers)
    }

    /// Offers a repository `owner/name` by the hub's protocol.
    pub fn add_hub_repo(&self, name: &str, repo: HubRepo) {
        lock(&self.shared.content).repos.insert(name.to_owned(), repo);
    }

    /// From now on registry requests need `Authorization: Bearer <token>`; the token is handed out at `realm`, by default
    /// `/token` of the first host.
    pub fn require_token(&self, token: &str, realm: Option<&str>) {
        let realm = realm.map_or_else(|| format!("{}/token", self.url()), str::to_owned);
        lock(&self.shared.content).token = Some((token.to_owned(), realm));
    }

    /// Every request whose path contains `path` gets this fault. A fault of a body hits where the bytes are served (after
    /// a redirect: the second host), any other hits first where it matches.
    pub fn fault(&self, path: &str, fault: OriginFault) {
        lock(&self.shared.faults).add(path, None, fault);
    }

    /// Like [`FakeOrigin::fault`], for so many requests only.
    pub fn fault_times(&self, path: &str, times: u32, fault: OriginFault) {
        lock(&self.shared.faults).add(path, Some(times), fault);
    }

    /// No faults from now on.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Adds what a setup file lists.
    ///
    /// # Errors
    /// When a file it names cannot be read.
    pub fn set_up(&self, setup: OriginSetup) -> io::Result<()> {
        setup.apply(&self.shared)
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<OriginRequest> {
        lock(&self.shared.record).clone()
    }

    /// Requests of one method whose path contains `path`.
    pub fn requests_to(&self, method: &str, path: &str) -> Vec<OriginRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.method == method && request.path.contains(path));
        requests
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        lock(&self.shared.record).clear();
    }

    /// Requests that carried a credential (`Authorization`, `Cookie`) to the second host: must be none.
    pub fn leaks(&self) -> Vec<OriginRequest> {
        let mut requests = self.requests();
        requests.retain(OriginRequest::is_leak);
        requests
    }

    /// The manifest stored for `[namespace/]model[:tag]`, byte for byte.
    pub fn manifest(&self, name: &str) -> Option<Bytes> {
        lock(&self.shared.content).manifest(name)
    }

    /// The blob stored under `sha256:<hex>`.
    pub fn blob(&self, digest: &str) -> Option<Bytes> {
        lock(&self.shared.content).blobs.get(digest).cloned()
    }
}
