//! Eviction by memory: before a just-in-time load, idle just-in-time models leave, least recently used first, but only while
//! the coming one would not fit (LM Studio contract 3, \[better\]).

use domain::{LaunchOptions, ModelEntry, ModelKey, ModelState};

use crate::Router;

impl Router {
    /// Unloads what has to go for this model. Models at work and models loaded by name stay; so the model may still not
    /// fit, and its start then settles for less (or says why not).
    pub(crate) async fn make_fit(&self, model: &ModelEntry, wish: &LaunchOptions) {
        let options = wish.or(&model.launch).or(&self.core.settings().launch);
        loop {
            // As the start will reckon; with more memory it takes more.
            let budget = self.core.budget();
            let needed = engines::memory_needed(model, &engines::plan(model, &options, &budget));
            if needed <= budget.ram_available.saturating_add(budget.vram_free) {
                return;
            }
            let Some(victim) = self.idle_jit(model.instance_key()) else {
                return;
            };
            tracing::info!(model = %victim, coming = %model.key, "unloading an idle model to make room in memory");
            self.unload(&victim, false).await;
        }
    }

    /// The idle just-in-time model that was used longest ago.
    fn idle_jit(&self, coming: &ModelKey) -> Option<ModelKey> {
        let idle = self.running().into_iter().filter(|(entry, view)| {
            view.jit && view.state == ModelState::Ready && view.active == 0 && view.queued == 0 && !entry.pinned
        });
        idle.filter(|(_, view)| view.model != *coming)
            .min_by_key(|(_, view)| view.last_used_ms)
            .map(|(_, view)| view.model)
    }
}
