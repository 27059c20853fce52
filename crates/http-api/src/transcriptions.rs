//! Transcriptions for the window: where each one stands, as events and in `/v1/state`. Never their text.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dialects::audio::Hearing;
use domain::audio::Task;
use domain::{ErrorKind, EventKind, ModelKey, RequestId, RunnerError, TranscriptionState, TranscriptionView};
use telemetry::EventBus;

/// Finished ones that are shown.
const FINISHED: usize = 20;
/// Least time between two events about the progress of one.
const EVERY: Duration = Duration::from_millis(250);
/// When to ask again while the queue is full.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// All of them, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Transcriptions {
    bus: EventBus,
    list: Arc<Mutex<VecDeque<TranscriptionView>>>,
}

fn is_over(view: &TranscriptionView) -> bool {
    !matches!(view.state, TranscriptionState::Queued | TranscriptionState::Running)
}

impl Transcriptions {
    pub(crate) fn new(bus: EventBus) -> Self {
        Self {
            bus,
            list: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<TranscriptionView>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Newest first.
    pub(crate) fn recent(&self) -> Vec<TranscriptionView> {
        self.lock().iter().rev().cloned().collect()
    }

    /// A new one, which waits for its engine.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when `max_queue` wait for the model already.
    pub(crate) fn begin(
        &self,
        id: RequestId,
        model: ModelKey,
        asked: String,
        task: Task,
        max_queue: usize,
    ) -> Result<Transcription, RunnerError> {
        let view = TranscriptionView {
            id,
            model,
            asked,
            task,
            state: TranscriptionState::Queued,
            progress: 0.0,
            duration: None,
            language: None,
            processing_s: None,
            characters: 0,
            error: None,
        };
        {
            let mut list = self.lock();
            let of_model = |state| {
                let same = |other: &&TranscriptionView| other.state == state && other.model == view.model;
                list.iter().filter(same).count()
            };
            let waiting = of_model(TranscriptionState::Queued);
            if waiting >= max_queue && waiting + of_model(TranscriptionState::Running) > 0 {
                return Err(RunnerError::new(
                    ErrorKind::Overloaded {
                        retry_after: RETRY_AFTER,
                    },
                    format!("The queue of this model is full: waiting recordings {waiting}. Try again later."),
                ));
            }
            if list.iter().filter(|other| is_over(other)).count() >= FINISHED
                && let Some(oldest) = list.iter().position(is_over)
            {
                list.remove(oldest);
            }
            list.push_back(view.clone());
        }
        let transcription = Transcription {
            all: self.clone(),
            own: Mutex::new(Own {
                view,
                counted: 0,
                told: None,
            }),
        };
        transcription.change(true, |_| {});
        Ok(transcription)
    }

    fn show(&self, view: &TranscriptionView) {
        if let Some(shown) = self.lock().iter_mut().find(|shown| shown.id == view.id) {
            shown.clone_from(view);
        }
    }
}

/// One of them. Dropped before its end, its client went away.
#[derive(Debug)]
pub(crate) struct Transcription {
    all: Transcriptions,
    own: Mutex<Own>,
}

#[derive(Debug)]
struct Own {
    view: TranscriptionView,
    /// Segments whose characters are counted.
    counted: usize,
    /// The last event.
    told: Option<Instant>,
}

impl Transcription {
    /// Changes what is shown; told at once, or not more often than [`EVERY`]. What is over stays as it is.
    fn change(&self, at_once: bool, change: impl FnOnce(&mut Own)) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over(&own.view) {
            return;
        }
        let known = own.view.duration.is_some();
        change(&mut own);
        self.all.show(&own.view);
        let at_once = at_once || known != own.view.duration.is_some();
        if at_once || own.told.is_none_or(|told| told.elapsed() >= EVERY) {
            own.told = Some(Instant::now());
            self.all.bus.publish(EventKind::Transcription {
                transcription: own.view.clone(),
            });
        }
    }

    /// The engine has it, or has it again.
    pub(crate) fn running(&self) {
        self.change(true, |own| {
            own.view.state = TranscriptionState::Running;
            (own.view.progress, own.view.characters, own.counted) = (0.0, 0, 0);
        });
    }

    /// It waits for an engine again.
    pub(crate) fn queued(&self) {
        self.change(true, |own| own.view.state = TranscriptionState::Queued);
    }

    /// What was heard so far.
    pub(crate) fn heard(&self, hearing: &Hearing) {
        self.change(false, |own| own.see(hearing));
    }

    /// All of it was heard, or that failed.
    pub(crate) fn end(&self, hearing: &Hearing) {
        self.change(true, |own| {
            own.see(hearing);
            match hearing.error() {
                None => {
                    own.view.state = TranscriptionState::Completed;
                    own.view.progress = 1.0;
                }
                Some(error) => own.fail(error),
            }
        });
    }

    /// The engine's own answer went to the client.
    pub(crate) fn passed_on(&self) {
        self.change(true, |own| {
            own.view.state = TranscriptionState::Completed;
            own.view.progress = 1.0;
        });
    }

    /// It came to nothing.
    pub(crate) fn fail(&self, error: &RunnerError) {
        self.change(true, |own| own.fail(error));
    }
}

impl Own {
    fn see(&mut self, hearing: &Hearing) {
        let view = &mut self.view;
        view.progress = hearing.progress;
        if hearing.heard.duration > 0.0 {
            view.duration = Some(hearing.heard.duration);
        }
        view.language.clone_from(&hearing.heard.language);
        view.processing_s = hearing.processing_s;
        let new = hearing.segments.get(self.counted..).unwrap_or_default();
        view.characters += new
            .iter()
            .map(|segment| segment.text.chars().count() as u64)
            .sum::<u64>();
        self.counted = hearing.segments.len();
    }

    fn fail(&mut self, error: &RunnerError) {
        self.view.state = TranscriptionState::Failed;
        self.view.error = Some(error.message.clone());
    }
}

impl Drop for Transcription {
    fn drop(&mut self) {
        self.change(true, |own| own.view.state = TranscriptionState::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(all: &Transcriptions, id: u64, max_queue: usize) -> Result<Transcription, RunnerError> {
        all.begin(
            RequestId(id),
            "whisper".into(),
            "whisper-1".into(),
            Task::Transcribe,
            max_queue,
        )
    }

    #[test]
    fn a_full_queue_refuses_and_an_idle_model_never_does() {
        let all = Transcriptions::new(EventBus::new());
        let first = begin(&all, 1, 0).unwrap();
        first.running();
        assert!(begin(&all, 2, 0).is_err());
        let _second = begin(&all, 3, 1).unwrap();
        let refused = begin(&all, 4, 1).unwrap_err();
        assert_eq!(refused.retry_after_seconds(), Some(5));
        assert_eq!(all.recent().len(), 2, "a refusal is not shown");
    }

    #[test]
    fn ends_are_told_once_and_few_are_kept() {
        let bus = EventBus::new();
        let mut events = bus.subscribe();
        let all = Transcriptions::new(bus);
        let one = begin(&all, 1, 9).unwrap();
        one.running();
        let mut hearing = Hearing::default();
        hearing.push(
            b"{\"event\":\"info\",\"duration\":10.0,\"language\":\"en\"}\n",
            |_, _| {},
        );
        for progress in 1..50 {
            hearing.push(
                format!("{{\"event\":\"progress\",\"progress\":0.{progress:02}}}\n").as_bytes(),
                |_, _| {},
            );
            one.heard(&hearing);
        }
        hearing.push(b"{\"event\":\"done\",\"processing_s\":1.5}\n", |_, _| {});
        one.end(&hearing);
        one.fail(&RunnerError::internal("too late"));
        drop(one);
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let EventKind::Transcription { transcription } = &event.kind {
                seen.push(transcription.state);
            }
        }
        let (first, last) = (&seen[..2], seen.last().unwrap());
        assert_eq!(first, [TranscriptionState::Queued, TranscriptionState::Running]);
        assert_eq!(*last, TranscriptionState::Completed);
        assert!(seen.len() <= 5, "{seen:?}");
        for id in 2..40 {
            drop(begin(&all, id, 9).unwrap());
        }
        let recent = all.recent();
        assert_eq!((recent.len(), recent[0].id), (FINISHED, RequestId(39)));
        assert_eq!(recent[0].state, TranscriptionState::Cancelled);
    }
}
