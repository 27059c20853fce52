use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::{EventKind, ModelEntry, ModelKey};
use telemetry::EventBus;
use tokio::sync::{oneshot, watch};

use crate::index::Index;
use crate::instances::Instances;
use crate::watch::Watches;
use crate::{Catalog, ModelsError, RegistrySettings, library};

/// How long [`Registry::open`] waits for the first scan. A slower disk fills the catalogue in the background.
const FIRST_SCAN: Duration = Duration::from_secs(3);
/// How long [`Registry::shutdown`] waits for a scan under way.
const LAST_SCAN: Duration = Duration::from_secs(5);
/// How often folders that cannot be watched are looked at.
const POLL: Duration = Duration::from_secs(30);
/// Share of time that scans after changes may take: one part in this many.
const PACE: u32 = 20;

/// What one scan found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanReport {
    /// Models in the catalogue after the scan.
    pub models: usize,
    /// Model files seen.
    pub files: usize,
    /// Files whose header was read (the others came from the index).
    pub read: usize,
    /// True when the catalogue differs from the one before.
    pub changed: bool,
    /// Files and settings that could not be used.
    pub problems: Vec<Problem>,
}

/// Something the user may want to know about a file or a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder, when it is about one.
    pub path: Option<PathBuf>,
    /// One sentence.
    pub reason: String,
}

impl Problem {
    pub(crate) fn of(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: Some(path.to_owned()),
            reason: reason.into(),
        }
    }

    pub(crate) fn plain(reason: String) -> Self {
        Self { path: None, reason }
    }
}

/// The model library. Clones are handles to the same library; with the last one its thread ends.
#[derive(Clone)]
pub struct Registry {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    ended: watch::Receiver<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Fails when the thread has ended already.
        let _ = self.commands.send(Command::End);
    }
}

/// What the library's thread writes and everyone reads.
#[derive(Default)]
struct Shared {
    catalog: ArcSwap<Catalog>,
    /// Held while the catalogue is replaced, so that neither a scan nor a further instance gets lost.
    instances: Mutex<Arc<Instances>>,
    problems: Mutex<Vec<Problem>>,
}

impl Shared {
    /// Puts what a scan found in place.
    fn store(&self, scanned: Catalog) {
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        self.catalog
            .store(Arc::new(scanned.with_instances(Arc::clone(&instances))));
    }

    /// Changes the further instances; what the change says.
    fn change_instances(&self, change: impl FnOnce(&mut Instances) -> bool) -> bool {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(Arc::make_mut(&mut instances));
        if changed {
            let catalog = Catalog::clone(&self.catalog.load());
            self.catalog
                .store(Arc::new(catalog.with_instances(Arc::clone(&instances))));
        }
        changed
    }
}

enum Command {
    Scan(oneshot::Sender<ScanReport>),
    Apply(Box<RegistrySettings>),
    /// Something changed on disk.
    Changed,
    End,
}

impl Registry {
    /// Starts the library and does the first scan, waiting for it for at most three seconds. Blocking.
    pub fn open(settings: RegistrySettings, bus: EventBus) -> Result<Self, ModelsError> {
        let (commands, inbox) = mpsc::channel();
        let (alive, ended) = watch::channel(());
        let shared = Arc::new(Shared::default());
        let (first, scanned) = mpsc::channel::<()>();
        let mut owner = Owner {
            index: Index::load(&settings.index_path),
            settings,
            bus,
            shared: Arc::clone(&shared),
            watches: None,
            poll: false,
            commands: commands.clone(),
        };
        std::thread::Builder::new()
            .name("models".into())
            .spawn(move || {
                // Dropped when this thread ends, however it ends.
                let _alive = alive;
                let spent = owner.scan_and_watch().1;
                let _ = first.send(());
                owner.run(&inbox, spent);
            })
            .map_err(ModelsError::Thread)?;
        // A time-out is no error: the scan goes on, and its result is announced on the bus.
        let _ = scanned.recv_timeout(FIRST_SCAN);
        Ok(Self {
            handle: Arc::new(Handle {
                shared,
                commands,
                ended,
            }),
        })
    }

    /// The models known now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.handle.shared.catalog.load_full()
    }

    /// Makes a further instance of a model known (its `instance_of` names the model). False: its identifier is taken by
    /// another one, is a name of another model, or its own model's key.
    pub fn add_instance(&self, entry: Arc<ModelEntry>) -> bool {
        let shared = &self.handle.shared;
        // Identifiers win over names: requests for the other model would go to this instance.
        let taken = shared.catalog.load().is_taken(&entry);
        !taken && shared.change_instances(|instances| instances.add(entry))
    }

    /// Forgets a further instance. False: there was none of this identifier.
    pub fn remove_instance(&self, identifier: &ModelKey) -> bool {
        self.handle
            .shared
            .change_instances(|instances| instances.remove(identifier))
    }

    /// What could not be used at the last scan.
    pub fn problems(&self) -> Vec<Problem> {
        self.handle
            .shared
            .problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Scans now. After [`Registry::shutdown`] the report is empty.
    pub async fn rescan(&self) -> ScanReport {
        let (reply, report) = oneshot::channel();
        if self.handle.commands.send(Command::Scan(reply)).is_err() {
            return ScanReport::default();
        }
        report.await.unwrap_or_default()
    }

    /// New settings; the scan they need follows at once in the background. A [`Registry::rescan`] after it returns when
    /// they are in effect.
    pub fn apply(&self, settings: RegistrySettings) {
        // Fails only after shutdown.
        let _ = self.handle.commands.send(Command::Apply(Box::new(settings)));
    }

    /// Stops watching and ends the library's thread. The catalogue stays readable. A scan that a slow disk holds up is
    /// waited for at most five seconds.
    pub async fn shutdown(&self) {
        let _ = self.handle.commands.send(Command::End);
        let mut ended = self.handle.ended.clone();
        // The sender never sends: the only change is its end.
        let _ = tokio::time::timeout(LAST_SCAN, ended.changed()).await;
    }
}

/// Everything the library's thread owns.
struct Owner {
    settings: RegistrySettings,
    index: Index,
    bus: EventBus,
    shared: Arc<Shared>,
    watches: Option<Watches>,
    /// Some folder cannot be watched.
    poll: bool,
    commands: Sender<Command>,
}

impl Owner {
    fn run(&mut self, inbox: &Receiver<Command>, first: Duration) {
        // Set while a change waits for its scan.
        let mut due: Option<Instant> = None;
        let mut rest_until = Instant::now() + first * PACE;
        loop {
            let wait = due
                .map(|due| due.saturating_duration_since(Instant::now()))
                .or(self.poll.then_some(POLL));
            let command = match wait {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inbox.recv_timeout(wait),
            };
            let reply = match command {
                Ok(Command::Changed) => {
                    due = due.or(Some(rest_until.max(Instant::now())));
                    continue;
                }
                Ok(Command::Scan(reply)) => Some(reply),
                Ok(Command::Apply(settings)) => {
                    if settings.index_path != self.settings.index_path {
                        self.index = Index::load(&settings.index_path);
                    }
                    self.settings = *settings;
                    None
                }
                Err(RecvTimeoutError::Timeout) => None,
                Ok(Command::End) | Err(RecvTimeoutError::Disconnected) => return,
            };
            let (report, spent) = self.scan_and_watch();
            due = None;
            rest_until = Instant::now() + spent * PACE;
            if let Some(reply) = reply {
                let _ = reply.send(report);
            }
        }
    }

    /// Watches first, so that a change during the scan leads to another one.
    fn scan_and_watch(&mut self) -> (ScanReport, Duration) {
        let unwatched = self.follow();
        let started = Instant::now();
        let (catalog, mut report) = library::scan(&self.settings, &mut self.index);
        let spent = started.elapsed();
        report.problems.extend(unwatched);
        report.changed = catalog.entries() != self.shared.catalog.load().entries();
        tracing::debug!(
            models = report.models,
            files = report.files,
            read = report.read,
            problems = report.problems.len(),
            ms = spent.as_millis() as u64,
            "scanned the model folders"
        );
        let mut told = self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in report.problems.iter().filter(|problem| !told.contains(problem)) {
            tracing::warn!(path = ?problem.path, "{}", problem.reason);
        }
        report.problems.clone_into(&mut told);
        drop(told);
        // Stored in any case: aliases may have changed without any entry changing.
        self.shared.store(catalog);
        if report.changed {
            self.bus.publish(EventKind::CatalogChanged { models: report.models });
        }
        (report, spent)
    }

    fn follow(&mut self) -> Vec<Problem> {
        self.poll = false;
        if !self.settings.watch {
            self.watches = None;
            return Vec::new();
        }
        if self.watches.is_none() {
            let commands = self.commands.clone();
            let started = Watches::start(move || {
                // Fails when the library has ended.
                let _ = commands.send(Command::Changed);
            });
            match started {
                Ok(watches) => self.watches = Some(watches),
                Err(error) => {
                    self.poll = true;
                    return vec![Problem::plain(format!(
                        "the models folders cannot be watched for changes: {error}"
                    ))];
                }
            }
        }
        let problems = self
            .watches
            .as_mut()
            .map(|watches| watches.follow(&self.settings.watched()))
            .unwrap_or_default();
        self.poll = !problems.is_empty();
        problems
    }
}
