//! Sockets: binding, the accept loop and its limits (promises H5, H9, H11, S1).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::{self, Connection};
use crate::port_holder::{Holder, port_holder};
use crate::rewake::Rewake;
use crate::state::ApiState;
use crate::wire::Wire;

/// Which program's habits a listener has where several dialects meet on one path (management contract 6). All routes
/// exist on all listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Ollama, port 11434.
    Ollama,
    /// LM Studio, port 1234.
    LmStudio,
    /// Management and the window, port 5800.
    Management,
}

impl Flavour {
    /// The word in config, ready line and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::LmStudio => "lmstudio",
            Self::Management => "management",
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// `127.0.0.1`, `::1` or `localhost`; anything else is refused until API keys exist (promise S1).
    pub host: String,
    /// 0: any free port.
    pub port: u16,
}

/// Limits of connections (promise H5). The defaults are the product's; tests scale them down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections on one listener.
    pub total: usize,
    /// Connections of one peer address on one listener. High, since on loopback everybody is the same peer.
    pub per_peer: usize,
    /// Longest wait for the first byte of a connection, and from the first to the last byte of a request head.
    pub head_timeout: Duration,
    /// Longest silence between two requests.
    pub idle_timeout: Duration,
    /// Longest time a client may leave an answer unread.
    pub write_timeout: Duration,
    /// Largest request head, in bytes.
    pub max_head: usize,
    /// How long a request body may take before its average rate counts.
    pub body_grace: Duration,
    /// Lowest average rate of a request body after the grace time, in bytes per second.
    pub body_min_rate: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 16_384,
            per_peer: 8_192,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_mins(5),
            max_head: 64 * 1024,
            body_grace: Duration::from_secs(10),
            body_min_rate: 1024,
        }
    }
}

/// Why a listener is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{error}")]
pub struct ListenerProblem {
    /// One sentence: what, why, what to do.
    pub error: String,
    /// Who holds the port, where the system tells.
    pub held_by: Option<Holder>,
}

/// Sockets that are bound but not served yet.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<TcpListener>,
    address: SocketAddr,
}

impl Bound {
    /// The address to tell people (IPv4 when both families are bound).
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

const BACKLOG: u32 = 1024;
/// Two per connection (client and engine) and some for files.
#[cfg(unix)]
const WANTED_DESCRIPTORS: u64 = 65_536;

/// Binds a listener. A loopback host is bound on `127.0.0.1` and, where the machine has it, `[::1]` (promise H11).
///
/// # Errors
/// The host is not loopback (promise S1), or the port is taken: then with its holder.
pub async fn bind(settings: &ListenerSettings) -> Result<Bound, ListenerProblem> {
    raise_descriptor_limit();
    let host = settings.host.trim();
    let addresses: &[IpAddr] = match host {
        "localhost" | "127.0.0.1" | "" => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        other => match other.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => &[address],
            Ok(address) => {
                return Err(problem(format!(
                    "Listening on {address} is refused: it would be reachable from other machines without an API key. \
                     Use 127.0.0.1."
                )));
            }
            Err(_) => {
                return Err(problem(format!(
                    "The host '{other}' is not an IP address. Use 127.0.0.1."
                )));
            }
        },
    };
    let first = listen(SocketAddr::new(addresses[0], settings.port)).map_err(|error| taken(settings.port, &error))?;
    let address = first.local_addr().map_err(|error| taken(settings.port, &error))?;
    let mut sockets = vec![first];
    for other in &addresses[1..] {
        // Machines without IPv6 are common; a foreign program on [::1] alone must not take IPv4 clients away.
        match listen(SocketAddr::new(*other, address.port())) {
            Ok(socket) => sockets.push(socket),
            Err(error) => tracing::debug!(%error, address = %other, port = address.port(), "second address not bound"),
        }
    }
    Ok(Bound { sockets, address })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Desktops start programs with 1,024 descriptors, fewer than the connections we accept; the hard limit is for asking.
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current < limit.maximum || (limit.current.is_some() && limit.maximum.is_none()) {
            limit.current = Some(limit.maximum.unwrap_or(WANTED_DESCRIPTORS).min(WANTED_DESCRIPTORS));
            if let Err(error) = setrlimit(Resource::Nofile, limit) {
                tracing::debug!(%error, "descriptor limit");
            }
        }
    }
}

fn problem(error: String) -> ListenerProblem {
    ListenerProblem { error, held_by: None }
}

fn taken(port: u16, error: &std::io::Error) -> ListenerProblem {
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return problem(format!("Port {port} could not be opened: {error}."));
    }
    let held_by = port_holder(port);
    let who = held_by.as_ref().map_or_else(
        || "another program".to_owned(),
        |holder| format!("{} (process {})", holder.name, holder.pid),
    );
    ListenerProblem {
        error: format!("Port {port} is taken by {who}. Stop that program or choose another port in the settings."),
        held_by,
    }
}

/// Serves a bound listener until `cancel`: then stops accepting, lets running answers finish and closes idle connections.
/// Every accept loop and connection is a task of `tracker`.
pub fn serve(bound: Bound, state: Arc<ApiState>, flavour: Flavour, tracker: TaskTracker, cancel: CancellationToken) {
    let Bound { sockets, .. } = bound;
    let listener = Arc::new(Listener {
        flavour,
        slots: Arc::new(Semaphore::new(state.limits().total)),
        peers: Mutex::default(),
        state,
        tracker,
        cancel,
    });
    for socket in sockets {
        let accepting = Arc::clone(&listener);
        listener.tracker.spawn(async move { accepting.accept(socket).await });
    }
}

/// What all connections of one listener share.
pub(crate) struct Listener {
    pub(crate) flavour: Flavour,
    pub(crate) state: Arc<ApiState>,
    pub(crate) cancel: CancellationToken,
    pub(crate) tracker: TaskTracker,
    slots: Arc<Semaphore>,
    peers: Mutex<HashMap<IpAddr, usize>>,
}

impl Listener {
    async fn accept(self: Arc<Self>, socket: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                // Out of descriptors: waiting for some to come back is all one can do.
                Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                    tracing::warn!(%error, "no descriptor for a new connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => tracing::debug!(%error, "accept failed"),
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(slot) = Slot::take(self, peer.ip()) else {
            tracing::warn!(%peer, "too many connections");
            self.tracker.spawn(refuse(stream));
            return;
        };
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(Connection {
            listener: Arc::clone(self),
            peer,
            _slot: slot,
        });
        self.tracker.spawn(run(stream, connection));
    }
}

/// A place among the connections of a listener and of its peer, also for a connection that became a WebSocket.
pub(crate) struct Slot {
    listener: Arc<Listener>,
    peer: IpAddr,
    _total: OwnedSemaphorePermit,
}

impl Slot {
    fn take(listener: &Arc<Listener>, peer: IpAddr) -> Option<Self> {
        let total = Arc::clone(&listener.slots).try_acquire_owned().ok()?;
        let mut peers = listener.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_default();
        if *count >= listener.state.limits().per_peer {
            return None;
        }
        *count += 1;
        drop(peers);
        Some(Self {
            listener: Arc::clone(listener),
            peer,
            _total: total,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut peers = self.listener.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

/// Says no in one write and closes.
async fn refuse(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: application/json\r\nContent-Length: 33\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\"}\n";
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(ANSWER)).await;
}

async fn run(stream: TcpStream, connection: Arc<Connection>) {
    let limits = connection.listener.state.limits();
    let io = TokioIo::new(Wire::new(stream, limits));
    let cancel = connection.listener.cancel.clone();
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last answer, so this is the idle time; heads are timed in `Wire`.
        .header_read_timeout(limits.idle_timeout)
        // As the servers we stand in for write them: some clients' maps of headers tell cases apart.
        .title_case_headers(true)
        .max_header_size(limits.max_head)
        .max_buf_size(limits.max_head.max(16 * 1024) * 2)
        .serve_connection(
            io,
            service_fn(move |request| dispatch::answer(Arc::clone(&connection), request)),
        )
        .with_upgrades();
    let serving = std::pin::pin!(serving);
    let mut serving = Rewake::new(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = cancel.cancelled() => {
            serving.inner_mut().as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bound(host: &str, port: u16) -> Result<Bound, ListenerProblem> {
        bind(&ListenerSettings {
            host: host.into(),
            port,
        })
        .await
    }

    #[tokio::test]
    async fn loopback_on_both_families() {
        for host in ["127.0.0.1", "localhost", ""] {
            let bound = bound(host, 0).await.unwrap();
            assert!(bound.address().ip().is_loopback() && bound.address().port() > 0);
            for socket in &bound.sockets {
                assert_eq!(socket.local_addr().unwrap().port(), bound.address().port());
            }
        }
        assert_eq!(
            bound("127.0.0.2", 0).await.unwrap().address().ip().to_string(),
            "127.0.0.2"
        );
    }

    #[tokio::test]
    async fn other_machines_are_kept_out() {
        for host in ["0.0.0.0", "::", "[::]", "192.168.1.1", "example.org", "127.1"] {
            let problem = bound(host, 0).await.unwrap_err();
            assert!(problem.error.contains("127.0.0.1"), "{}", problem.error);
        }
    }

    #[tokio::test]
    async fn a_taken_port_names_its_holder() {
        let first = bound("127.0.0.1", 0).await.unwrap();
        let problem = bound("127.0.0.1", first.address().port()).await.unwrap_err();
        assert!(problem.error.contains("is taken by"), "{}", problem.error);
        if cfg!(target_os = "linux") {
            assert_eq!(problem.held_by.unwrap().pid, std::process::id());
        }
    }
}
