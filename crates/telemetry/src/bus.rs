use std::sync::{Arc, Mutex, PoisonError};

use domain::{Event, EventKind};
use tokio::sync::broadcast;

/// Events a slow subscriber may fall behind before it loses the oldest (promise W4: it then sees `Lagged`).
const CAPACITY: usize = 512;

/// Where everything that happens is told: tray, window and event streams subscribe here.
///
/// Cloning gives another handle to the same bus. Publishing never waits.
#[derive(Debug, Clone)]
pub struct EventBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sender: broadcast::Sender<Arc<Event>>,
    // Number and send under one lock, so that subscribers see the numbers rise without a step back.
    seq: Mutex<u64>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new()
    }
}

impl EventBus {
    /// A bus nobody listens to yet.
    pub fn new() -> Self {
        let (sender, _) = broadcast::channel(CAPACITY);
        Self {
            inner: Arc::new(Inner {
                sender,
                seq: Mutex::new(0),
            }),
        }
    }

    /// Tells every subscriber. Without subscribers only the number rises: no clock read, no allocation.
    pub fn publish(&self, kind: EventKind) {
        let mut seq = self.inner.seq.lock().unwrap_or_else(PoisonError::into_inner);
        *seq += 1;
        if self.inner.sender.receiver_count() == 0 {
            return;
        }
        // An error only says that the last subscriber left between the two lines.
        let _ = self.inner.sender.send(Arc::new(Event {
            seq: *seq,
            at_ms: crate::now_ms(),
            kind,
        }));
    }

    /// Receives every event from now on. A receiver that is not read loses the oldest and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.inner.sender.subscribe()
    }

    /// The number of the newest event; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        *self.inner.seq.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_also_when_nobody_listens() {
        let bus = EventBus::new();
        bus.publish(EventKind::ShuttingDown);
        let mut events = bus.subscribe();
        bus.publish(EventKind::Requests { active: 1 });
        bus.publish(EventKind::Requests { active: 2 });
        assert_eq!(bus.last_seq(), 3);
        let seen: Vec<u64> = std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| event.seq)
            .collect();
        assert_eq!(seen, [2, 3]);
    }

    #[test]
    fn parallel_publishers_keep_the_order() {
        let bus = EventBus::new();
        let mut events = bus.subscribe();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let bus = bus.clone();
                scope.spawn(move || (0..100).for_each(|active| bus.publish(EventKind::Requests { active })));
            }
        });
        let seen: Vec<u64> = std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| event.seq)
            .collect();
        assert_eq!(seen, (1..=400).collect::<Vec<_>>());
    }

    #[test]
    fn a_sleeping_subscriber_is_told_what_it_lost_and_blocks_nobody() {
        let bus = EventBus::new();
        let mut events = bus.subscribe();
        for active in 0..CAPACITY as u32 + 10 {
            bus.publish(EventKind::Requests { active });
        }
        assert!(matches!(
            events.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(10))
        ));
        assert_eq!(events.try_recv().unwrap().seq, 11);
    }
}
