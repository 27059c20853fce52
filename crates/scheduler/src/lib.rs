//! Who may use which engine, and which engines run: a pure state machine. Events go in, effects come out; the router
//! carries them out. Every event is defined in every state.
//!
//! Must not know: clocks, async, processes, sockets. Time is a `Duration` since any fixed moment, passed in with each
//! event.
//!
//! Rules (reliability guide R5, R6, R8, R11, H4; Ollama contract 4.4 and 9; LM Studio contract 3):
//!
//! * One model has at most one process, however many requests wait for it.
//! * At most `max_loaded` processes exist; a place is free only when the old process has been reaped.
//! * Requests for a loaded model go first, first come first served; a request for another model that has waited longer
//!   than `patience` closes the least recently used model to new requests, and running ones finish.
//! * Idle models leave when their keep-alive is over or when room is needed; pinned ones stay.
//! * A load nobody waits for any more is cancelled, unless it was asked for explicitly.
//!
//! ```
//! use scheduler::{Limits, Scheduler};
//! let scheduler = Scheduler::new(Limits::default(), 1);
//! assert_eq!(scheduler.waiting(), 0);
//! ```

mod back_off;
mod event;
mod machine;
mod model;
mod room;
#[cfg(test)]
mod tests;
mod view;

pub use back_off::{BackOff, Decision};
pub use event::{Acquire, Effect, Event, LeaseId, Limits, Load, TicketId};
pub use machine::Scheduler;
pub use view::InstanceFacts;
