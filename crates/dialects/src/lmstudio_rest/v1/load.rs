use std::time::Duration;

use domain::{EngineMode, InstanceView, LaunchOptions, ModelEntry, RunnerError};
use serde_json::{Value, json};

use super::models::{kind, load_config};
use super::seconds;
use crate::json::to_vec;
use crate::lmstudio_rest::fields::Fields;
use crate::lmstudio_rest::models::entry_id;

/// `POST /api/v1/models/load`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadCall {
    /// The model's name.
    pub model: String,
    /// Launch wishes.
    pub launch: LaunchOptions,
    /// Show the settings in effect.
    pub echo: bool,
    /// Idle time after which it goes (*ext*).
    pub ttl: Option<Duration>,
    /// Name of the instance (*ext*).
    pub identifier: Option<String>,
}

impl LoadCall {
    /// Reads the body.
    ///
    /// # Errors
    /// `InvalidRequest` with LM Studio's codes; unknown keys are refused.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body)?;
        let call = Self {
            model: fields.required_string("model")?,
            launch: LaunchOptions {
                context: fields.integer("context_length", 1)?,
                batch: fields.integer("eval_batch_size", 1)?,
                flash_attention: fields
                    .bool("flash_attention")?
                    .map(|on| if on { "on" } else { "off" }.to_owned()),
                experts: fields.integer("num_experts", 1)?,
                kv_offload: fields.bool("offload_kv_cache_to_gpu")?,
                parallel: fields.integer("parallel", 1)?,
                ..LaunchOptions::default()
            },
            echo: fields.bool("echo_load_config")?.unwrap_or(false),
            ttl: fields.integer("ttl", 1)?.map(|ttl| Duration::from_secs(u64::from(ttl))),
            identifier: fields.string("identifier")?.filter(|name| !name.trim().is_empty()),
        };
        fields.finish()?;
        Ok(call)
    }

    /// The wishes for this model.
    pub fn launch_for(&self, entry: &ModelEntry) -> LaunchOptions {
        LaunchOptions {
            mode: Some(if kind(entry) == "embedding" {
                EngineMode::Embedding
            } else {
                EngineMode::Completion
            }),
            // Only a mixture of experts has them to choose.
            experts: self.launch.experts.filter(|_| entry.facts.expert_count.is_some()),
            ..self.launch.clone()
        }
    }

    /// Would this load end up with the same settings as that instance (contract 7.2)?
    pub fn same_settings(&self, entry: &ModelEntry, instance: &InstanceView) -> bool {
        let wish = self.launch_for(entry);
        let longest = entry.facts.context_length.unwrap_or(u32::MAX);
        let context = wish.context.map(|context| context.min(longest));
        let others = LaunchOptions {
            context: None,
            ..wish.clone()
        };
        let have = &instance.launch;
        // A smaller context than the loaded one would be served, but it was not what was asked for; a larger one that the
        // engine could not give would not be given again.
        have.satisfies(&others, None)
            && context.is_none_or(|context| context == have.context || have.options.context == Some(context))
            && wish.parallel.is_none_or(|parallel| parallel == have.parallel)
    }
}

/// The answer to a load.
#[derive(Debug)]
pub struct LoadReply<'a> {
    /// What was loaded.
    pub entry: &'a ModelEntry,
    /// Its instance.
    pub instance: &'a InstanceView,
    /// How long it took; zero when it was there already.
    pub took: Duration,
    /// Show the settings in effect.
    pub echo: bool,
}

impl LoadReply<'_> {
    /// The body.
    pub fn render(&self) -> Vec<u8> {
        let mut value = json!({
            "type": kind(self.entry),
            "instance_id": entry_id(self.entry),
            "load_time_seconds": seconds(self.took),
            "status": "loaded",
        });
        if self.echo {
            value["load_config"] = load_config(self.entry, self.instance);
        }
        to_vec(&value)
    }
}

/// `POST /api/v1/models/unload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnloadCall {
    /// The instance, or a model with exactly one.
    pub instance_id: String,
}

impl UnloadCall {
    /// Reads the body.
    ///
    /// # Errors
    /// As [`LoadCall::parse`].
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body)?;
        let call = Self {
            instance_id: fields.required_string("instance_id")?,
        };
        fields.finish()?;
        Ok(call)
    }
}

/// The answer to an unload.
pub fn unload_reply(instance_id: &str) -> Vec<u8> {
    to_vec(&Value::from_iter([("instance_id", instance_id)]))
}
