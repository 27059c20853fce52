use domain::{Capabilities, Capability, ModelFacts};

use crate::{Header, Value};

/// What a GGUF file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A model the engine can run (or the first part of one).
    Model,
    /// A further part of a split model.
    Part,
    /// Image or audio input for a model beside it.
    Projector,
    /// Something else; the word says what.
    Other(&'static str),
}

/// What kinds of input a projector file adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projector {
    /// Images.
    pub vision: bool,
    /// Sound.
    pub audio: bool,
    /// Width of its output, which must fit the model's embedding width; `None` when not stated.
    pub width: Option<u64>,
}

/// Models of these architectures only encode: they have no KV cache and cannot generate.
const ENCODERS: &[&str] = &[
    "bert",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "t5encoder",
    "gemma-embedding",
];

/// The engine's number for "this model scores documents" in `<arch>.pooling_type`.
const POOLING_RANK: u64 = 4;
/// The engine's number for "no pooling".
const POOLING_NONE: u64 = 0;

/// What this file is for.
pub fn purpose(header: &Header) -> Purpose {
    if header.split().is_some_and(|split| split.number > 0) {
        return Purpose::Part;
    }
    if projector(header).is_some() {
        return Purpose::Projector;
    }
    match header.metadata.text("general.type") {
        Some("adapter") => return Purpose::Other("a LoRA adapter"),
        Some("imatrix") => return Purpose::Other("an importance matrix"),
        Some("vocab") => return Purpose::Other("a vocabulary without a model"),
        _ => {}
    }
    if header.architecture().is_empty() {
        return Purpose::Other("a file without an architecture");
    }
    if header.tensor_count == 0 && header.split().is_none() {
        return Purpose::Other("a vocabulary without a model");
    }
    // Image generators come as GGUF too; they have neither layers in this form nor a tokenizer.
    if header.arch_uint("block_count").is_none() && header.metadata.get("tokenizer.ggml.model").is_none() {
        return Purpose::Other("not a language model");
    }
    Purpose::Model
}

/// The projector's abilities, when the file is one.
pub fn projector(header: &Header) -> Option<Projector> {
    let data = &header.metadata;
    let vision = data.boolean("clip.has_vision_encoder");
    let audio = data.boolean("clip.has_audio_encoder");
    let is_one = header.architecture() == "clip"
        || matches!(data.text("general.type"), Some("mmproj" | "clip-vision"))
        || vision == Some(true)
        || audio == Some(true);
    is_one.then(|| Projector {
        // Old projectors state neither: they are for images.
        vision: vision.unwrap_or(audio != Some(true)),
        audio: audio.unwrap_or(false),
        width: data
            .uint("clip.vision.projection_dim")
            .or_else(|| data.uint("clip.audio.projection_dim")),
    })
}

/// The facts of one file. For a split model, add the sums of the further parts.
pub fn facts(header: &Header) -> ModelFacts {
    let data = &header.metadata;
    let narrow = |n: Option<u64>| n.and_then(|n| u32::try_from(n).ok());
    let vocabulary = header
        .arch_uint("vocab_size")
        .or_else(|| match data.get("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => Some(tokens.len),
            _ => None,
        });
    ModelFacts {
        architecture: header.architecture().to_owned(),
        name: text(header, "general.name"),
        basename: text(header, "general.basename"),
        parameters: header.parameters,
        quantization: header.quantization().to_owned(),
        bits_per_weight: header.bits_per_weight(),
        context_length: narrow(header.arch_uint("context_length")),
        embedding_length: narrow(header.arch_uint("embedding_length")),
        block_count: narrow(header.arch_uint("block_count")),
        kv_bytes_per_token: kv_bytes_per_token(header),
        expert_count: narrow(header.arch_uint("expert_count")).filter(|n| *n > 0),
        vocab_size: narrow(vocabulary),
        has_chat_template: template(header).is_some(),
    }
}

/// A text of the metadata, trimmed; empty ones count as absent, endless ones are cut.
fn text(header: &Header, key: &str) -> Option<String> {
    let text = header.metadata.text(key)?.trim();
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    (!text.is_empty()).then_some(text)
}

fn template(header: &Header) -> Option<&str> {
    header
        .metadata
        .text("tokenizer.chat_template")
        .filter(|template| !template.trim().is_empty())
}

/// Bytes of K and V for one token at F16: for each layer, KV heads × (key width + value width) × 2.
///
/// An upper bound: sliding windows and shared layers need less. Layers without attention count nothing when the header
/// says so (zero heads, or an attention interval).
fn kv_bytes_per_token(header: &Header) -> Option<u64> {
    if ENCODERS.contains(&header.architecture()) {
        return None;
    }
    let blocks = header.arch_uint("block_count").filter(|n| (1..=4096).contains(n))?;
    let per_layer = |key: &str| match header.arch_value(key)? {
        Value::Array(list) => list.items.as_ref()?.to_u64s(),
        value => value.as_u64().map(|n| vec![n; blocks as usize]),
    };
    let heads = per_layer("attention.head_count")?;
    let kv_heads = per_layer("attention.head_count_kv").unwrap_or_else(|| heads.clone());
    let widest = heads.iter().copied().max().filter(|n| *n > 0)?;
    let head_width = header.arch_uint("embedding_length").map(|width| width / widest);
    let key_width = header.arch_uint("attention.key_length").or(head_width)?;
    let value_width = header.arch_uint("attention.value_length").or(head_width)?;
    let interval = header
        .arch_uint("full_attention_interval")
        .filter(|n| *n > 0)
        .unwrap_or(1);
    let total_heads = kv_heads
        .iter()
        .take(blocks as usize)
        .try_fold(0_u64, |sum, n| sum.checked_add(*n))?;
    (total_heads / interval)
        .checked_mul(key_width.checked_add(value_width)?)?
        .checked_mul(2)
        .filter(|n| *n > 0)
}

/// What a model can do, by metadata and chat template (Ollama contract 3.3). Images and sound need a projector, which
/// is a file of its own: pass its abilities.
pub fn capabilities(header: &Header, with: Option<Projector>) -> Capabilities {
    let data = &header.metadata;
    let mut set = Capabilities::default();
    let pooling = header.arch_uint("pooling_type");
    let chat = template(header);
    let encoder = ENCODERS.contains(&header.architecture());
    if pooling == Some(POOLING_RANK) || data.get("tokenizer.chat_template.rerank").is_some() {
        set.insert(Capability::Rerank);
        return set;
    }
    // "No pooling" on a model that can chat is a generating model whose converter wrote the field anyway.
    let generates = !encoder && (pooling.is_none() || (pooling == Some(POOLING_NONE) && chat.is_some()));
    if !generates {
        set.insert(Capability::Embedding);
        return set;
    }
    set.insert(Capability::Completion);
    if let Some(chat) = chat {
        template_capabilities(chat)
            .iter()
            .for_each(|capability| set.insert(capability));
    }
    if header.fim_vocabulary || has_fim_keys(header) {
        set.insert(Capability::Insert);
    }
    if header.arch_value("vision.block_count").is_some() || with.is_some_and(|p| p.vision) {
        set.insert(Capability::Vision);
    }
    if header.arch_value("audio.block_count").is_some() || with.is_some_and(|p| p.audio) {
        set.insert(Capability::Audio);
    }
    set
}

fn has_fim_keys(header: &Header) -> bool {
    let has = |names: [&str; 2]| {
        names.iter().any(|name| {
            header
                .metadata
                .get(&format!("tokenizer.ggml.{name}_token_id"))
                .is_some()
        })
    };
    has(["fim_pre", "prefix"]) && has(["fim_suf", "suffix"])
}

/// What a chat template lets a generating model do.
pub fn template_capabilities(template: &str) -> Capabilities {
    let wanted = [
        (true, Capability::Chat),
        (mentions_tools(template), Capability::Tools),
        (mentions_thinking(template), Capability::Thinking),
    ];
    wanted
        .into_iter()
        .filter_map(|(has, capability)| has.then_some(capability))
        .collect()
}

fn mentions_tools(template: &str) -> bool {
    template.contains("tools") || template.contains("tool_call")
}

/// The marks between which models of different families think.
fn mentions_thinking(template: &str) -> bool {
    (template.contains("<think>") && template.contains("</think>"))
        || template.contains("split('</think>')")
        || template.contains("split(\"</think>\")")
        || template.contains("<|channel|>analysis")
        || template.contains("[THINK]")
        || template.contains("<seed:think>")
        || template.contains("enable_thinking")
}

impl Header {
    /// The Jinja chat template, when there is one.
    pub fn chat_template(&self) -> Option<&str> {
        template(self)
    }
}
