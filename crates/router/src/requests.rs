use domain::{ActiveRequest, ModelKey, RequestId, RequestPhase};

/// Requests in flight: a slab, so that a request costs no allocation of its own here.
#[derive(Debug)]
pub(crate) struct Requests {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    first_id: u64,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: RequestId,
    model: ModelKey,
    operation: &'static str,
    client: String,
    running: bool,
    started_ms: i64,
}

impl Requests {
    /// Ids begin with the time, so that they differ between runs of the app.
    pub(crate) fn new(now_ms: i64) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            first_id: (now_ms as u64) << 20,
            next_id: (now_ms as u64) << 20,
        }
    }

    /// The next id.
    pub(crate) fn number(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    /// Adds a request, which may have its id already; returns its place and its id.
    pub(crate) fn insert(
        &mut self,
        id: Option<RequestId>,
        model: ModelKey,
        operation: &'static str,
        client: String,
    ) -> (usize, RequestId) {
        let id = id.unwrap_or_else(|| self.number());
        let entry = Some(Entry {
            id,
            model,
            operation,
            client,
            running: false,
            started_ms: telemetry::now_ms(),
        });
        if let Some(place) = self.free.pop() {
            self.entries[place] = entry;
            return (place, id);
        }
        self.entries.push(entry);
        (self.entries.len() - 1, id)
    }

    pub(crate) fn set_running(&mut self, place: usize) {
        if let Some(Some(entry)) = self.entries.get_mut(place) {
            entry.running = true;
        }
    }

    pub(crate) fn remove(&mut self, place: usize) {
        if self.entries.get_mut(place).and_then(Option::take).is_some() {
            self.free.push(place);
        }
    }

    /// How many there have been.
    pub(crate) fn total(&self) -> u64 {
        self.next_id - self.first_id
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// All, oldest first. `waiting` says where a request stands that has no slot yet.
    pub(crate) fn list(&self, waiting: impl Fn(&ModelKey) -> RequestPhase) -> Vec<ActiveRequest> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .flatten()
            .map(|entry| ActiveRequest {
                id: entry.id,
                model: entry.model.clone(),
                operation: entry.operation.to_owned(),
                client: entry.client.clone(),
                phase: if entry.running {
                    RequestPhase::Running
                } else {
                    waiting(&entry.model)
                },
                started_ms: entry.started_ms,
            })
            .collect();
        all.sort_by_key(|request| request.id);
        all
    }
}
