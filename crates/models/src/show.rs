use std::path::Path;

use domain::ModelEntry;
use gguf::{Array, Detail, Header, Items};
use serde_json::{Map, Number, Value};

use crate::ModelsError;
use crate::record::read_header;

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
    /// Arrays are null unless asked verbosely (and then too if they are beyond the memory limit).
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
///
/// # Errors
/// When a file of the model cannot be read any more.
pub fn details(entry: &ModelEntry, verbose: bool) -> Result<ShowDetails, ModelsError> {
    if entry.is_speech() {
        return Ok(of_speech(entry));
    }
    let detail = if verbose { Detail::Verbose } else { Detail::Tensors };
    let header = read(&entry.path, detail)?;
    let mut tensors = tensors(&header);
    for part in &entry.parts {
        tensors.extend(self::tensors(&read(part, Detail::Tensors)?));
    }
    let mut metadata = metadata(&header, verbose);
    metadata.insert("general.parameter_count".to_owned(), entry.facts.parameters.into());
    let projector = match &entry.mmproj {
        None => None,
        Some(path) => Some(self::metadata(&read(path, detail)?, verbose)),
    };
    Ok(ShowDetails {
        metadata,
        projector,
        tensors,
        template: header.chat_template().map(str::to_owned),
        license: header.metadata.text("general.license").map(str::to_owned),
    })
}

/// A speech model has no GGUF header: what the library knows, under names of the same form.
fn of_speech(entry: &ModelEntry) -> ShowDetails {
    let facts = &entry.facts;
    let own = |name: &str| format!("{}.{name}", facts.architecture);
    let known = [
        (
            "general.architecture".to_owned(),
            Some(facts.architecture.as_str().into()),
        ),
        (
            "general.parameter_count".to_owned(),
            (facts.parameters > 0).then(|| facts.parameters.into()),
        ),
        (own("vocab_size"), facts.vocab_size.map(Value::from)),
        (own("embedding_length"), facts.embedding_length.map(Value::from)),
        (own("block_count"), facts.block_count.map(Value::from)),
    ];
    ShowDetails {
        metadata: known
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        ..ShowDetails::default()
    }
}

fn read(path: &Path, detail: Detail) -> Result<Header, ModelsError> {
    read_header(path, detail).map_err(|source| ModelsError::Read {
        name: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        source,
    })
}

fn tensors(header: &Header) -> Vec<TensorView> {
    let view = |tensor: &gguf::TensorInfo| TensorView {
        name: tensor.name.clone(),
        kind: tensor.kind_name(),
        shape: tensor.shape.clone(),
    };
    header.tensors.iter().map(view).collect()
}

fn metadata(header: &Header, verbose: bool) -> Map<String, Value> {
    header
        .metadata
        .iter()
        .filter(|(key, _)| !matches!(*key, "general.name" | "tokenizer.chat_template"))
        .map(|(key, value)| (key.to_owned(), json(value, verbose)))
        .collect()
}

fn json(value: &gguf::Value, verbose: bool) -> Value {
    match value {
        gguf::Value::Uint(n) => (*n).into(),
        gguf::Value::Int(n) => (*n).into(),
        gguf::Value::Float(n) => float(*n),
        gguf::Value::Bool(value) => (*value).into(),
        gguf::Value::Text(text) => text.as_str().into(),
        gguf::Value::LongText(_) => Value::Null,
        gguf::Value::Array(list) => array(list, verbose),
    }
}

fn array(list: &Array, verbose: bool) -> Value {
    let Some(items) = list.items.as_ref().filter(|_| verbose) else {
        return Value::Null;
    };
    match items {
        Items::Uint(items) => items.iter().copied().map(Value::from).collect(),
        Items::Int(items) => items.iter().copied().map(Value::from).collect(),
        Items::Float(items) => items.iter().copied().map(float).collect(),
        Items::Bool(items) => items.iter().copied().map(Value::from).collect(),
        Items::Text(items) => items.iter().map(|text| Value::from(text.as_str())).collect(),
        Items::Nested(items) => items.iter().map(|list| array(list, verbose)).collect(),
    }
}

/// JSON has no infinities; a 32-bit float is written with the digits it has.
fn float(n: f64) -> Value {
    let short = n as f32;
    let n = if f64::from(short).to_bits() == n.to_bits() {
        short.to_string().parse().unwrap_or(n)
    } else {
        n
    };
    Number::from_f64(n).map_or(Value::Null, Value::Number)
}
