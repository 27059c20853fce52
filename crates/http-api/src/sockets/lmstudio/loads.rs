//! Loading and unloading (LM Studio contract 3, 10.4).

use std::sync::Arc;
use std::time::Duration;

use dialects::lmstudio_rest::{entry_id, model_key};
use dialects::lmstudio_ws::{
    ByIdentifier, Domain, EstimateModelUsage, GetOrLoad, GetOrLoadMessage, KvStack, LoadModel, LoadModelMessage,
    ModelUse, Query, WireError, load_wish, model_info, usage_estimate,
};
use domain::{EventKind, InstanceView, KeepAlive, LaunchOptions, ModelEntry, ModelKey, ModelState, RunnerError};
use router::{LeaseRequest, OpenInstance, Router};
use serde::Serialize;
use telemetry::EventBus;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::task::TaskTracker;

use super::work::{Channel, Context, Reply, reply};

/// A sign of life at least this often: Python gives up after 60 s of silence (contract 10.5).
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

fn time(ms: Option<f64>) -> Option<KeepAlive> {
    let ms = ms.filter(|ms| ms.is_finite() && *ms >= 1.0)?;
    Some(KeepAlive::For(Duration::from_millis(ms as u64)))
}

/// The launch options that a client asks for; what has no effect is logged.
fn wish(stack: &KvStack, domain: Domain, entry: &ModelEntry) -> LaunchOptions {
    let wish = load_wish(&stack.collapse(), domain, entry);
    if !wish.ignored.is_empty() {
        tracing::info!(model = %entry.key, keys = wish.ignored.join(", "), "load settings without effect here");
    }
    wish.launch
}

/// `getOrLoad`.
pub(super) async fn get_or_load(
    cx: &Arc<Context>,
    domain: Domain,
    channel: &Channel,
    given: GetOrLoad,
) -> Result<(), WireError> {
    let state = cx.state();
    let entry = cx.model(&given.identifier, domain)?;
    let (model_state, view) = state.router.status(entry.instance_key());
    if let (ModelState::Ready, Some(view)) = (&model_state, &view) {
        let info = cx.info(&entry, view, domain);
        channel.send(&GetOrLoadMessage::AlreadyLoaded { info: &info }).await;
        return Ok(());
    }
    let _busy = cx.begin();
    let settings = state.settings();
    let idle = matches!(model_state, ModelState::Unloaded | ModelState::Failed(_));
    if idle && settings.lmstudio_port.auto_evict {
        for other in others_just_in_time(cx, &entry) {
            channel
                .send(&GetOrLoadMessage::UnloadingOtherJitModel { info: &other })
                .await;
        }
    }
    let info = model_info(&entry, domain);
    channel
        .send(&GetOrLoadMessage::StartLoading {
            identifier: &entry_id(&entry),
            info: &info,
        })
        .await;
    let request = LeaseRequest {
        model: Arc::clone(&entry),
        // Somebody else's load is joined as it is.
        launch: if idle {
            wish(&given.load_config_stack, domain, &entry)
        } else {
            LaunchOptions::default()
        },
        keep_alive: Some(time(given.load_ttl_ms).unwrap_or(KeepAlive::For(settings.lmstudio_port.default_ttl))),
        jit: true,
        operation: "lmstudio load",
        client: cx.name.clone(),
        id: None,
    };
    let router = state.router.clone();
    let load = async move { router.lease(request).await.map(|lease| lease.instance()) };
    let told = |progress| GetOrLoadMessage::LoadProgress { progress };
    let view = with_progress(&state.bus, entry.instance_key(), channel, told, load).await?;
    let info = cx.info(&entry, &view, domain);
    channel.send(&GetOrLoadMessage::LoadSuccess { info: &info }).await;
    Ok(())
}

/// Infos of the instances that a just-in-time load of this model evicts (contract 3).
fn others_just_in_time(cx: &Context, entry: &ModelEntry) -> Vec<serde_json::Value> {
    let both = [Domain::Llm, Domain::Embedding].into_iter();
    let loaded = both.flat_map(|domain| cx.loaded(domain).into_iter().map(move |loaded| (domain, loaded)));
    loaded
        .filter(|(_, other)| other.view.jit && !other.entry.pinned && other.view.model != *entry.instance_key())
        .map(|(domain, other)| cx.info(&other.entry, &other.view, domain))
        .collect()
}

/// `loadModel`: always a new instance.
pub(super) async fn load(
    cx: &Arc<Context>,
    domain: Domain,
    channel: &Channel,
    given: LoadModel,
) -> Result<(), WireError> {
    let state = cx.state();
    let model = cx.model(&given.model_key, domain)?;
    let _busy = cx.begin();
    let opening = state.router.open_instance(OpenInstance {
        name: model_key(&model),
        launch: wish(&given.load_config_stack, domain, &model),
        model,
        identifier: given.identifier,
        keep_alive: Some(time(given.ttl_ms).unwrap_or(KeepAlive::Forever)),
    })?;
    let entry = Arc::clone(opening.entry());
    let mut abandoned = Abandoned {
        router: state.router.clone(),
        tracker: cx.connection.listener.tracker.clone(),
        key: Some(entry.instance_key().clone()),
    };
    let info = model_info(&entry, domain);
    channel.send(&LoadModelMessage::Resolved { info: &info }).await;
    let told = |progress| LoadModelMessage::Progress { progress };
    let loaded = with_progress(&state.bus, entry.instance_key(), channel, told, opening.loaded()).await;
    if loaded.is_ok() || !channel.cancel.is_cancelled() {
        abandoned.key = None;
    }
    let view = loaded?;
    let info = cx.info(&entry, &view, domain);
    channel.send(&LoadModelMessage::Success { info: &info }).await;
    Ok(())
}

/// A load that its client gave up or left is stopped, unless others wait for it too. It stands in the queue itself.
struct Abandoned {
    router: Router,
    tracker: TaskTracker,
    /// `None`: the load is over.
    key: Option<ModelKey>,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let (state, view) = self.router.status(&key);
        let loading = matches!(state, ModelState::Loading { .. } | ModelState::Queued);
        if loading && view.is_none_or(|view| view.queued <= 1) {
            let router = self.router.clone();
            self.tracker.spawn(async move { router.unload(&key, true).await });
        }
    }
}

/// Waits for a load and tells how far it is: 0 to 1, never falling.
async fn with_progress<M: Serialize>(
    bus: &EventBus,
    key: &ModelKey,
    channel: &Channel,
    message: impl Fn(f32) -> M,
    load: impl Future<Output = Result<InstanceView, RunnerError>>,
) -> Result<InstanceView, WireError> {
    let mut events = bus.subscribe();
    let mut listening = true;
    let mut last = 0.0_f32;
    let mut alive = interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut load = std::pin::pin!(load);
    loop {
        tokio::select! {
            biased;
            () = channel.cancel.cancelled() => return Err(WireError::new("The load was cancelled.")),
            loaded = &mut load => {
                let view = loaded?;
                if last < 1.0 {
                    channel.send(&message(1.0)).await;
                }
                return Ok(view);
            }
            event = events.recv(), if listening => match event {
                Ok(event) => {
                    if let EventKind::Instance { instance } = &event.kind
                        && instance.model == *key
                        && let ModelState::Loading { progress } = instance.state
                        && progress > last
                    {
                        last = progress.min(1.0);
                        channel.send(&message(last)).await;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => listening = false,
            },
            _ = alive.tick() => channel.send(&message(last)).await,
        }
    }
}

/// `unloadModel`: running answers may finish, for as long as a stop of the server would wait.
pub(super) async fn unload(cx: &Context, domain: Domain, given: ByIdentifier) -> Reply {
    let loaded = cx.by_name(&given.identifier).filter(|loaded| {
        // Also one that is still loading or drains already.
        Domain::of(&loaded.entry) == Some(domain)
    });
    let Some(loaded) = loaded else {
        let query = Query {
            identifier: Some(given.identifier),
            ..Query::default()
        };
        return Err(cx.no_model(&query, domain));
    };
    let drain = cx.state().settings().drain;
    cx.state()
        .router
        .unload_within(loaded.entry.instance_key(), drain)
        .await;
    Ok(None)
}

/// `estimateModelUsage`.
pub(super) fn estimate(cx: &Context, domain: Domain, given: &EstimateModelUsage) -> Reply {
    let entry = cx.model(&given.model_key, domain)?;
    let wish = wish(&given.load_config_stack, domain, &entry).or(&entry.launch);
    let context = wish.context.or(entry.facts.context_length).unwrap_or(4096);
    let slots = u64::from(wish.parallel.unwrap_or(1));
    let blocks = u64::from(entry.facts.block_count.unwrap_or(0)) + 1;
    let hardware = &cx.state().hardware;
    let has_gpu = !hardware.gpus().is_empty();
    let on_gpu = match wish.gpu_layers {
        _ if !has_gpu => 0,
        None => 1000,
        Some(layers) => (u64::from(layers) * 1000 / blocks).min(1000),
    };
    let per_token = entry.facts.kv_bytes_per_token;
    let context = per_token.map(|bytes| bytes.saturating_mul(u64::from(context)).saturating_mul(slots));
    let total = entry.size.saturating_add(context.unwrap_or(0));
    reply(&usage_estimate(ModelUse {
        model: entry.size,
        context,
        on_gpu,
        fits: total <= hardware.memory().available,
    }))
}
