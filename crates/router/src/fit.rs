//! Eviction by memory: before a just-in-time load, idle just-in-time models leave, least recently used first, but only while
//! the coming one would not fit (LM Studio contract 3, \[better\]).

use domain::{LaunchOptions, ModelEntry, ModelKey, ModelState};

use crate::Router;

/// Context assumed when nobody names one.
const CONTEXT: u32 = 4096;
/// Buffers of an engine beside weights and cache, in bytes.
const BUFFERS: u64 = 256 << 20;

impl Router {
    /// Unloads what has to go for this model. Models at work and models loaded by name stay; so the model may still not
    /// fit, and its start then settles for less (or says why not).
    pub(crate) async fn make_fit(&self, model: &ModelEntry, wish: &LaunchOptions) {
        let needed = estimate(model, wish);
        while self.core.free_memory() < needed {
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

/// Memory a model takes, in bytes: its files, the cache of one context per slot, and buffers.
fn estimate(model: &ModelEntry, wish: &LaunchOptions) -> u64 {
    let options = wish.or(&model.launch);
    let trained = model.facts.context_length.unwrap_or(CONTEXT);
    let context = options.context.unwrap_or(CONTEXT).min(trained.max(1));
    let tokens = u64::from(context) * u64::from(options.parallel.unwrap_or(1));
    let cache = model.facts.kv_bytes_per_token.unwrap_or(0).saturating_mul(tokens);
    model.size.saturating_add(cache).saturating_add(BUFFERS)
}
