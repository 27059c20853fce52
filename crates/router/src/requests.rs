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
    /// Ids begin with the time, so that they differ between runs of the app, and stay below 2^53, so that JavaScript can tell
    /// them apart: there is room for 2048 requests in each millisecond that the app runs.
    pub(crate) fn new(now_ms: i64) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            first_id: (now_ms as u64) << 11,
            next_id: (now_ms as u64) << 11,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_apart_where_numbers_are_floating() {
        let year_2100 = 4_102_444_800_000;
        let mut requests = Requests::new(year_2100);
        let ids: Vec<u64> = (0..3).map(|_| requests.number().0).collect();
        assert!(ids.iter().all(|id| *id < 1 << 53), "{ids:?}");
        assert!(
            ids.windows(2)
                .all(|pair| (pair[0] as f64).to_bits() != (pair[1] as f64).to_bits()),
            "{ids:?}"
        );
        assert!(ids[2] < Requests::new(year_2100 + 1).number().0, "{ids:?}");
    }
}
