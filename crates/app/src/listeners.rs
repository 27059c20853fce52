//! The three listeners (and the window's private one) as they come and go with the settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use config::{Config, Proxy};
use http_api::{ApiState, Bound, Flavour, ListenerProblem, ListenerSettings, ListenerView, ListenersView};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) type View = Arc<ArcSwap<ListenersView>>;

const FLAVOURS: [Flavour; 3] = [Flavour::Ollama, Flavour::LmStudio, Flavour::Management];
/// A socket that we closed ourselves may hold its port until its accept task has ended.
const OWN_PORT_WAIT: Duration = Duration::from_secs(2);

/// What a listener should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    enabled: bool,
    at: ListenerSettings,
}

impl Wanted {
    fn of(config: &Config, flavour: Flavour) -> Self {
        let proxy: &Proxy = match flavour {
            Flavour::Ollama => &config.proxies.ollama,
            Flavour::LmStudio => &config.proxies.lmstudio,
            Flavour::Management => &config.proxies.management,
        };
        Self {
            enabled: proxy.enabled,
            at: ListenerSettings {
                host: proxy.host.clone(),
                port: proxy.port,
            },
        }
    }
}

struct Running {
    flavour: Flavour,
    wanted: Wanted,
    /// Present while something listens.
    cancel: Option<CancellationToken>,
}

/// The listener of LM Studio's libraries.
#[derive(Default)]
struct Discovery {
    ports: Vec<u16>,
    cancel: Option<CancellationToken>,
}

/// Owns the sockets.
pub(crate) struct Listeners {
    view: View,
    /// The window needs a way in even when the management listener is off.
    desktop: bool,
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Mutex<Vec<Running>>,
    discovery: Mutex<Discovery>,
}

/// Sockets that are bound and wait for the parts they serve.
pub(crate) struct BoundListeners {
    listeners: Vec<(Flavour, Wanted, Option<Bound>)>,
    discovery: (Vec<u16>, Option<Bound>),
}

impl Listeners {
    pub(crate) fn new(view: View, desktop: bool) -> Self {
        Self {
            view,
            desktop,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            running: Mutex::default(),
            discovery: Mutex::default(),
        }
    }

    /// Binds everything that is enabled and records what came of it.
    pub(crate) async fn bind(&self, config: &Config) -> BoundListeners {
        let mut bound = Vec::new();
        for flavour in FLAVOURS {
            let wanted = Wanted::of(config, flavour);
            let socket = self.bind_one(flavour, &wanted, Duration::ZERO).await;
            bound.push((flavour, wanted, socket));
        }
        let ports = discovery_ports(config);
        let socket = self.bind_discovery(&ports, Duration::ZERO).await;
        BoundListeners {
            listeners: bound,
            discovery: (ports, socket),
        }
    }

    /// Starts to answer on what was bound.
    pub(crate) async fn serve(&self, bound: BoundListeners, state: &Arc<ApiState>) {
        let mut running = self.running.lock().await;
        for (flavour, wanted, socket) in bound.listeners {
            let cancel = socket.map(|socket| self.serve_one(socket, flavour, state));
            running.push(Running {
                flavour,
                wanted,
                cancel,
            });
        }
        let (ports, socket) = bound.discovery;
        *self.discovery.lock().await = Discovery {
            ports,
            cancel: socket.map(|socket| self.serve_one(socket, Flavour::LmStudio, state)),
        };
    }

    /// Follows a change of the settings: only listeners whose own settings changed are touched. Streams of a listener
    /// that goes run to their end.
    pub(crate) async fn apply(&self, config: &Config, state: &Arc<ApiState>) {
        let mut running = self.running.lock().await;
        for listener in running.iter_mut() {
            let wanted = Wanted::of(config, listener.flavour);
            if wanted == listener.wanted || self.stop.is_cancelled() {
                continue;
            }
            if let Some(cancel) = listener.cancel.take() {
                cancel.cancel();
            }
            let socket = self.bind_one(listener.flavour, &wanted, OWN_PORT_WAIT).await;
            listener.cancel = socket.map(|socket| self.serve_one(socket, listener.flavour, state));
            listener.wanted = wanted;
        }
        let mut discovery = self.discovery.lock().await;
        let ports = discovery_ports(config);
        if ports != discovery.ports && !self.stop.is_cancelled() {
            if let Some(cancel) = discovery.cancel.take() {
                cancel.cancel();
            }
            let socket = self.bind_discovery(&ports, OWN_PORT_WAIT).await;
            discovery.cancel = socket.map(|socket| self.serve_one(socket, Flavour::LmStudio, state));
            discovery.ports = ports;
        }
    }

    /// Stops accepting everywhere; running answers go on.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Waits until every connection has ended.
    pub(crate) async fn ended(&self) {
        self.tracker.wait().await;
    }

    /// Where the window's pages are.
    pub(crate) fn management(&self) -> Option<SocketAddr> {
        self.view.load().management.address
    }

    /// Where the LM Studio port answers.
    pub(crate) fn lmstudio(&self) -> Option<SocketAddr> {
        self.view.load().lmstudio.address
    }

    fn serve_one(&self, socket: Bound, flavour: Flavour, state: &Arc<ApiState>) -> CancellationToken {
        let cancel = self.stop.child_token();
        http_api::serve(socket, Arc::clone(state), flavour, self.tracker.clone(), cancel.clone());
        cancel
    }

    async fn bind_one(&self, flavour: Flavour, wanted: &Wanted, patience: Duration) -> Option<Bound> {
        let mut view = ListenerView {
            enabled: wanted.enabled,
            address: None,
            problem: None,
        };
        let mut socket = None;
        if wanted.enabled {
            match bind_patiently(&wanted.at, patience).await {
                Ok(bound) => {
                    tracing::info!(listener = flavour.as_str(), address = %bound.address(), "listening");
                    view.address = Some(bound.address());
                    socket = Some(bound);
                }
                Err(problem) => {
                    tracing::warn!(listener = flavour.as_str(), "{problem}");
                    view.problem = Some(problem);
                }
            }
        }
        if socket.is_none() && flavour == Flavour::Management && self.desktop {
            let private = ListenerSettings {
                host: "127.0.0.1".into(),
                port: 0,
            };
            match http_api::bind(&private).await {
                Ok(bound) => {
                    view.address = Some(bound.address());
                    socket = Some(bound);
                }
                Err(problem) => tracing::warn!("the window has no port: {problem}"),
            }
        }
        self.show(flavour, &view);
        socket
    }

    /// The first free port of those where LM Studio's libraries look. A real LM Studio may hold some (LM Studio contract
    /// 1.1); without any the libraries must be given an address, which is no reason not to start.
    async fn bind_discovery(&self, ports: &[u16], patience: Duration) -> Option<Bound> {
        let mut view = ListenerView {
            enabled: !ports.is_empty(),
            ..ListenerView::default()
        };
        let mut bound = None;
        for port in ports {
            let at = ListenerSettings {
                host: "127.0.0.1".into(),
                port: *port,
            };
            match bind_patiently(&at, patience).await {
                Ok(socket) => {
                    tracing::info!(address = %socket.address(), "LM Studio's libraries find the server here");
                    view.address = Some(socket.address());
                    view.problem = None;
                    bound = Some(socket);
                    break;
                }
                Err(problem) => {
                    tracing::info!("discovery for LM Studio's libraries: {problem}");
                    view.problem = Some(problem);
                }
            }
        }
        if bound.is_none() && !ports.is_empty() {
            tracing::warn!("LM Studio's libraries find this server only when they are given its address");
        }
        self.view.rcu(|all| ListenersView {
            sdk_discovery: view.clone(),
            ..ListenersView::clone(all)
        });
        bound
    }

    fn show(&self, flavour: Flavour, listener: &ListenerView) {
        self.view.rcu(|view| {
            let mut view = ListenersView::clone(view);
            match flavour {
                Flavour::Ollama => view.ollama = listener.clone(),
                Flavour::LmStudio => view.lmstudio = listener.clone(),
                Flavour::Management => view.management = listener.clone(),
            }
            view
        });
    }
}

fn discovery_ports(config: &Config) -> Vec<u16> {
    config.lmstudio.discovery_ports(&config.proxies.lmstudio).to_vec()
}

/// Tries again while the port is held by this very process.
async fn bind_patiently(at: &ListenerSettings, patience: Duration) -> Result<Bound, ListenerProblem> {
    let deadline = Instant::now() + patience;
    loop {
        match http_api::bind(at).await {
            Err(problem)
                if problem
                    .held_by
                    .as_ref()
                    .is_some_and(|holder| holder.pid == std::process::id())
                    && Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}
