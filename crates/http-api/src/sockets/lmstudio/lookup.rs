//! Loaded instances: lists, queries, and what is told about one (LM Studio contract 10.4).

use std::sync::Arc;

use dialects::lmstudio_rest::entry_id;
use dialects::lmstudio_ws::{
    Domain, GetModelInfo, InstanceFacts, KvConfig, KvStack, OfSpecifier, Prediction, ProcessingState, ProcessingStatus,
    Query, Specifier, WireError, instance_info,
};
use domain::{Capability, EngineMode, InstanceView, ModelEntry, ModelState};
use serde_json::Value;

use super::work::{Context, Loaded, Reply, reply};

impl Context {
    /// Instances of this kind that answer.
    pub(super) fn loaded(&self, domain: Domain) -> Vec<Loaded> {
        let state = self.state();
        let catalog = state.registry.catalog();
        let views = state.router.instances();
        let entries = views.into_iter().filter_map(|view| {
            let entry = Arc::clone(catalog.get(&view.model)?);
            Some(Loaded { entry, view })
        });
        entries.filter(|loaded| loaded.is(domain)).collect()
    }

    /// The loaded instance that a client means. Nothing is loaded for it.
    pub(super) fn find(&self, specifier: &Specifier, domain: Domain) -> Result<Loaded, WireError> {
        match specifier {
            Specifier::InstanceReference { instance_reference } => {
                let found = self.state().router.by_reference(instance_reference);
                found
                    .map(|(entry, view)| Loaded { entry, view })
                    .filter(|loaded| loaded.is(domain))
                    .ok_or_else(WireError::unloaded)
            }
            Specifier::Query { query } => self.query(query, domain).ok_or_else(|| self.no_model(query, domain)),
        }
    }

    fn query(&self, query: &Query, domain: Domain) -> Option<Loaded> {
        if query.device_identifier.is_some() || query.domain.as_deref().is_some_and(|word| word != domain.as_str()) {
            return None;
        }
        let fits = |loaded: &Loaded| {
            loaded.is(domain)
                && query
                    .vision
                    .is_none_or(|wanted| wanted == loaded.entry.can(Capability::Vision))
        };
        let named = [&query.identifier, &query.path].into_iter().flatten();
        let mut found: Option<Loaded> = None;
        for name in named {
            let loaded = self.by_name(name).filter(fits)?;
            if found.is_some_and(|other| other.view.id != loaded.view.id) {
                return None;
            }
            found = Some(loaded);
        }
        // "Any": the one that was used last.
        found.or_else(|| {
            let any = query.identifier.is_none() && query.path.is_none();
            let fitting = self.loaded(domain).into_iter().filter(|loaded| any && fits(loaded));
            fitting.max_by_key(|loaded| loaded.view.last_used_ms)
        })
    }

    /// The instance that a name means, if it is loaded.
    pub(super) fn by_name(&self, name: &str) -> Option<Loaded> {
        let router = &self.state().router;
        let entry = router.resolve(name)?;
        let view = router.status(entry.instance_key()).1?;
        Some(Loaded { entry, view })
    }

    /// The model that a name means, loaded or not.
    pub(super) fn model(&self, name: &str, domain: Domain) -> Result<Arc<ModelEntry>, WireError> {
        let query = Query {
            identifier: Some(name.to_owned()),
            ..Query::default()
        };
        let entry = self.state().router.resolve(name);
        let entry = entry.ok_or_else(|| self.no_model(&query, domain))?;
        match Domain::of(&entry) {
            Some(own) if own == domain => Ok(entry),
            Some(own) => Err(WireError::domain_mismatch(&entry.indexed_path, own, domain)),
            None => Err(self.no_model(&query, domain)),
        }
    }

    pub(super) fn no_model(&self, query: &Query, domain: Domain) -> WireError {
        let loaded: Vec<String> = self
            .loaded(domain)
            .iter()
            .map(|loaded| entry_id(&loaded.entry))
            .collect();
        WireError::no_model(query, &loaded)
    }

    /// Instance info.
    pub(super) fn info(&self, entry: &ModelEntry, view: &InstanceView, domain: Domain) -> Value {
        let reference = self.state().router.instance_reference(view.id);
        let facts = InstanceFacts {
            view,
            reference: &reference,
        };
        instance_info(entry, domain, facts)
    }
}

impl Loaded {
    /// Ready, and started for this kind of work.
    pub(super) fn is(&self, domain: Domain) -> bool {
        let mode = match domain {
            Domain::Llm => EngineMode::Completion,
            Domain::Embedding => EngineMode::Embedding,
        };
        self.view.state == ModelState::Ready && Domain::of(&self.entry) == Some(domain) && self.view.launch.mode == mode
    }
}

/// `listLoaded`.
pub(super) fn list_loaded(cx: &Context, domain: Domain) -> Reply {
    let infos: Vec<Value> = cx
        .loaded(domain)
        .iter()
        .map(|loaded| cx.info(&loaded.entry, &loaded.view, domain))
        .collect();
    reply(&infos)
}

/// `getModelInfo`.
pub(super) fn model_info(cx: &Context, domain: Domain, given: &GetModelInfo) -> Reply {
    match cx.find(&given.specifier, domain) {
        Ok(loaded) => reply(&cx.info(&loaded.entry, &loaded.view, domain)),
        Err(_) if !given.throw_if_not_found => Ok(None),
        Err(error) => Err(error),
    }
}

/// `getLoadConfig`.
pub(super) fn load_config(cx: &Context, domain: Domain, given: &OfSpecifier) -> Reply {
    let loaded = cx.find(&given.specifier, domain)?;
    reply(&dialects::lmstudio_ws::load_config(&loaded.entry, domain, &loaded.view))
}

/// `getBasePredictionConfig`: the defaults.
pub(super) fn base_prediction_config(cx: &Context, domain: Domain, given: &OfSpecifier) -> Reply {
    cx.find(&given.specifier, domain)?;
    match domain {
        Domain::Llm => reply(&Prediction::parse(&KvStack::default())?.echo),
        Domain::Embedding => reply(&KvConfig::default()),
    }
}

/// `getInstanceProcessingState`. Which of its slots reads a prompt, the engine alone knows.
pub(super) fn processing_state(cx: &Context, domain: Domain, given: &GetModelInfo) -> Reply {
    let loaded = match cx.find(&given.specifier, domain) {
        Ok(loaded) => loaded,
        Err(_) if !given.throw_if_not_found => return Ok(None),
        Err(error) => return Err(error),
    };
    let status = match (loaded.view.active, domain) {
        (0, _) => ProcessingStatus::Idle,
        (_, Domain::Llm) => ProcessingStatus::Generating,
        (_, Domain::Embedding) => ProcessingStatus::ComputingEmbedding,
    };
    reply(&ProcessingState {
        status,
        queued: loaded.view.queued,
    })
}
