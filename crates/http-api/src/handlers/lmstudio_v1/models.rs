//! `/api/v1/models` and the loads and unloads under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dialects::lmstudio_rest::v1::{self, LoadCall, LoadReply, UnloadCall};
use dialects::lmstudio_rest::{entry_id, model_key};
use domain::{Capability, ErrorKind, KeepAlive, ModelEntry, ModelKey, RunnerError};
use http::Response;
use hyper::body::Incoming;
use router::OpenInstance;

use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::json;
use crate::handlers::lease::{known, load_failed, not_found, require};
use crate::handlers::{Answer, listed_with_instances};

/// `GET /api/v1/models`.
pub(super) fn list(cx: &Cx) -> Response<Body> {
    json(cx.route.dialect, v1::models(&listed_with_instances(cx.state())))
}

/// `POST /api/v1/models/load`: an instance with the same settings is the answer, unless the caller names a new one or the
/// settings ask for LM Studio's way (contract 7.2).
pub(super) async fn load(cx: &Cx, body: Incoming) -> Answer {
    let call = LoadCall::parse(&cx.collect(body).await?)?;
    let entry = known(cx, &call.model).ok_or_else(|| not_found(cx, &call.model))?;
    let able = [Capability::Chat, Capability::Completion, Capability::Embedding];
    require(&entry, &call.model, &able, "this API")?;
    let begun = Instant::now();
    let router = &cx.state().router;
    let wish = OpenInstance {
        name: model_key(&entry),
        identifier: call.identifier.clone(),
        launch: call.launch_for(&entry),
        // Loaded by name: it stays (contract 3).
        keep_alive: Some(call.ttl.map_or(KeepAlive::Forever, KeepAlive::For)),
        model: Arc::clone(&entry),
    };
    let join = call.identifier.is_none() && !cx.settings.lmstudio_port.api_load_duplicates;
    let opening = if join {
        router.open_or_join(wish, |instance| call.same_settings(&entry, instance))?
    } else {
        router.open_instance(wish)?
    };
    let opened = Arc::clone(opening.entry());
    let was_loaded = opening.was_loaded();
    let instance = opening
        .loaded()
        .await
        .map_err(|error| load_failed(cx.state(), &opened, error))?;
    let reply = LoadReply {
        entry: &opened,
        instance: &instance,
        took: if was_loaded { Duration::ZERO } else { begun.elapsed() },
        echo: call.echo,
    };
    Ok(json(cx.route.dialect, reply.render()))
}

/// `POST /api/v1/models/unload`: running answers may finish within `supervisor.drain_timeout_seconds`.
pub(super) async fn unload(cx: &Cx, body: Incoming) -> Answer {
    let call = UnloadCall::parse(&cx.collect(body).await?)?;
    let (id, key) = instance(cx, call.instance_id.trim())?;
    cx.state().router.unload_within(&key, cx.settings.drain).await;
    Ok(json(cx.route.dialect, v1::unload_reply(&id)))
}

/// The instance of this identifier, or the only one of the model of this name (contract 7.3).
fn instance(cx: &Cx, name: &str) -> Result<(String, ModelKey), RunnerError> {
    let router = &cx.state().router;
    let found = |entry: &ModelEntry| (entry_id(entry), entry.key.clone());
    let running = router.running();
    let exact = running
        .iter()
        .find(|(entry, _)| entry_id(entry) == name || entry.key.as_str() == name);
    if let Some((entry, _)) = exact {
        return Ok(found(entry));
    }
    let mut of_model = known(cx, name)
        .map(|entry| router.instances_of(&entry))
        .unwrap_or_default()
        .into_iter();
    match (of_model.next(), of_model.next()) {
        (Some(only), None) => {
            let entry = running.iter().find(|(_, view)| view.id == only.id);
            Ok(entry.map_or_else(|| (name.to_owned(), only.model.clone()), |(entry, _)| found(entry)))
        }
        (Some(_), Some(_)) => {
            let text = format!("The model '{name}' has several instances. Name one of them.");
            Err(missing(name, text))
        }
        (None, _) => Err(missing(name, format!("There is no loaded instance '{name}'."))),
    }
}

fn missing(name: &str, text: String) -> RunnerError {
    let mut error = RunnerError::new(ErrorKind::ModelNotFound, text).param("instance_id");
    error.model = Some(name.to_owned());
    error
}
