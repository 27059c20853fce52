//! Parameters of the endpoints (contract 10.4 to 10.11). Unknown fields are ignored.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{History, KvStack};

/// What a loaded model is looked for by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// `llm` or `embedding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Null or absent: this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_identifier: Option<String>,
    /// Any name of the model or instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// Its path or the beginning of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether it must read images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<bool>,
}

/// Which loaded instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Specifier {
    /// Any that fits.
    Query {
        /// What it must fit; empty: any of the namespace.
        query: Query,
    },
    /// This very load.
    #[serde(rename_all = "camelCase")]
    InstanceReference {
        /// From an instance info.
        instance_reference: String,
    },
}

macro_rules! parameters {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field:meta])* $member:ident: $kind:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Deserialize)]
            #[serde(rename_all = "camelCase")]
            pub struct $name {
                $($(#[$field])* pub $member: $kind,)*
            }
        )*
    };
}

parameters! {
    /// `getLoadConfig`, `getBasePredictionConfig`.
    OfSpecifier {
        /// Which instance.
        specifier: Specifier,
    }
    /// `getModelInfo`, `getInstanceProcessingState`.
    GetModelInfo {
        /// Which instance.
        specifier: Specifier,
        /// False: no result instead of an error.
        #[serde(default)]
        throw_if_not_found: bool,
    }
    /// `unloadModel`.
    ByIdentifier {
        /// The instance.
        identifier: String,
    }
    /// `estimateModelUsage`.
    EstimateModelUsage {
        /// The model.
        model_key: String,
        /// Load configuration.
        #[serde(default)]
        load_config_stack: KvStack,
    }
    /// `tokenize`, `countTokens`.
    InputString {
        /// Which instance.
        specifier: Specifier,
        /// The text.
        input_string: String,
    }
    /// `embedString`.
    EmbedString {
        /// Which instance.
        model_specifier: Specifier,
        /// The text.
        input_string: String,
    }
    /// `loadModel`.
    LoadModel {
        /// The model.
        model_key: String,
        /// Name of the new instance.
        #[serde(default)]
        identifier: Option<String>,
        /// Idle time until it goes, in milliseconds.
        #[serde(default)]
        ttl_ms: Option<f64>,
        /// Load configuration.
        #[serde(default)]
        load_config_stack: KvStack,
    }
    /// `getOrLoad`.
    GetOrLoad {
        /// Any name of a model or instance.
        identifier: String,
        /// Idle time until it goes, in milliseconds, if it is loaded now.
        #[serde(default)]
        load_ttl_ms: Option<f64>,
        /// Load configuration.
        #[serde(default)]
        load_config_stack: KvStack,
    }
    /// `predict`.
    Predict {
        /// Which instance.
        model_specifier: Specifier,
        /// The conversation.
        history: History,
        /// How to answer.
        #[serde(default)]
        prediction_config_stack: KvStack,
        /// A preset's name or a part of it.
        #[serde(default)]
        fuzzy_preset_identifier: Option<String>,
    }
    /// `completeRawText`.
    CompleteRawText {
        /// Which instance.
        model_specifier: Specifier,
        /// The prompt, used as it is.
        raw_prompt: String,
        /// How to answer.
        #[serde(default)]
        prediction_config_stack: KvStack,
        /// A preset's name or a part of it.
        #[serde(default)]
        fuzzy_preset_identifier: Option<String>,
    }
    /// `applyPromptTemplate`.
    ApplyPromptTemplate {
        /// Which instance.
        specifier: Specifier,
        /// The conversation.
        history: History,
        /// How the answer would be made.
        #[serde(default)]
        prediction_config_stack: KvStack,
        /// Options.
        #[serde(default)]
        opts: TemplateOptions,
    }
    /// `listDownloadedModelVariants`.
    ModelKeyOnly {
        /// The model.
        model_key: String,
    }
    /// `notify`.
    Notify {
        /// First line.
        title: String,
        /// Further lines.
        #[serde(default)]
        description: Option<String>,
    }
    /// `uploadFileBase64`.
    UploadFile {
        /// File name.
        name: String,
        /// Contents.
        content_base64: String,
    }
    /// `searchModels`.
    SearchModels {
        /// Options.
        opts: SearchOptions,
    }
    /// Options of `searchModels`.
    SearchOptions {
        /// Words.
        #[serde(default)]
        search_term: Option<String>,
        /// Most results, 1 to 25.
        #[serde(default)]
        limit: Option<u32>,
    }
    /// `getModelDownloadOptions`.
    DownloadOptionsOf {
        /// From a search result.
        model_search_result_identifier: SearchIdentifier,
    }
    /// Where a search result is found.
    SearchIdentifier {
        /// `catalog` or `hf`.
        #[serde(rename = "type")]
        kind: String,
        /// `owner/name`.
        identifier: String,
    }
    /// `downloadModel`.
    DownloadModel {
        /// From a download option.
        download_identifier: String,
    }
}

/// Options of `applyPromptTemplate`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateOptions {
    /// Leave the first special token out.
    pub omit_bos_token: bool,
    /// Tools to show to the template, OpenAI form.
    pub tool_definitions: Vec<Value>,
}
