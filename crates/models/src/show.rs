use domain::ModelEntry;
use serde_json::{Map, Value};

use crate::ModelsError;

/// One tensor as `/api/show` lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TensorView {
    /// Name in the file.
    pub name: String,
    /// Storage type, for example `Q4_K`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Dimensions, fastest first.
    pub shape: Vec<u64>,
}

/// What `/api/show` says beyond the registry entry (Ollama contract 3.3).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShowDetails {
    /// `model_info`: every metadata key except `general.name` and the chat template, plus `general.parameter_count`.
    /// Arrays are null unless asked verbosely.
    pub metadata: Map<String, Value>,
    /// `projector_info`, when there is a projector.
    pub projector: Option<Map<String, Value>>,
    /// `tensors`, of all parts.
    pub tensors: Vec<TensorView>,
    /// The Jinja chat template.
    pub template: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
}

/// Reads the model's header again for a full view. Blocking: call it off the async threads.
pub fn details(_entry: &ModelEntry, _verbose: bool) -> Result<ShowDetails, ModelsError> {
    Ok(ShowDetails::default())
}
