//! Builds small GGUF files in memory, for tests: whole ones and, with the raw parts, hostile ones.

use crate::quant_type;

/// A GGUF file under construction. Counts are right unless overwritten.
#[derive(Debug, Clone, Default)]
pub struct Craft {
    version: Option<u32>,
    keys: u64,
    tensors: u64,
    pairs: Vec<u8>,
    list: Vec<u8>,
    data_len: u64,
}

impl Craft {
    /// An empty file of version 3.
    pub fn new() -> Self {
        Self::default()
    }

    /// The smallest file that is a chat model for the purposes of the library: 2 layers, one tensor of F16.
    pub fn model(name: &str) -> Self {
        Self::new()
            .text("general.architecture", "llama")
            .text("general.name", name)
            .uint("general.file_type", 1)
            .uint("llama.context_length", 2048)
            .uint("llama.embedding_length", 64)
            .uint("llama.block_count", 2)
            .uint("llama.attention.head_count", 4)
            .uint("llama.attention.head_count_kv", 2)
            .text("tokenizer.ggml.model", "gpt2")
            .text("tokenizer.chat_template", "{{ messages }}")
            .tensor("token_embd.weight", &[64, 8], 1)
    }

    /// A projector for images whose output has this width.
    pub fn projector(width: u32) -> Self {
        Self::new()
            .text("general.architecture", "clip")
            .flag("clip.has_vision_encoder", true)
            .uint("clip.vision.projection_dim", width)
            .tensor("mm.0.weight", &[64], 1)
    }

    /// Sets the version field.
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// A key with any type code and any bytes behind it.
    pub fn raw(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        push_text(&mut self.pairs, key);
        self.pairs.extend_from_slice(&kind.to_le_bytes());
        self.pairs.extend_from_slice(bytes);
        self.keys += 1;
        self
    }

    /// A text.
    pub fn text(self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        self.raw(key, 8, &bytes)
    }

    /// An unsigned 32-bit number.
    pub fn uint(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    /// A truth value.
    pub fn flag(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[value.into()])
    }

    /// A list of texts.
    pub fn texts<T: AsRef<str>>(self, key: &str, values: &[T]) -> Self {
        let mut bytes = list_head(8, values.len() as u64);
        for value in values {
            push_text(&mut bytes, value.as_ref());
        }
        self.raw(key, 9, &bytes)
    }

    /// A list of signed 32-bit numbers.
    pub fn ints(self, key: &str, values: &[i32]) -> Self {
        let mut bytes = list_head(5, values.len() as u64);
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        self.raw(key, 9, &bytes)
    }

    /// A tensor of a known type, behind the ones before it.
    pub fn tensor(self, name: &str, shape: &[u64], kind: u32) -> Self {
        let elements: u64 = shape.iter().product();
        let bytes = quant_type(kind).map_or(0, |quant| elements / quant.block * quant.bytes);
        let offset = self.data_len;
        let mut next = self.raw_tensor(name, shape, kind, offset);
        next.data_len = (offset + bytes).next_multiple_of(32);
        next
    }

    /// A tensor with any offset, and no data of its own.
    pub fn raw_tensor(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        push_text(&mut self.list, name);
        self.list.extend_from_slice(&(shape.len() as u32).to_le_bytes());
        for size in shape {
            self.list.extend_from_slice(&size.to_le_bytes());
        }
        self.list.extend_from_slice(&kind.to_le_bytes());
        self.list.extend_from_slice(&offset.to_le_bytes());
        self.tensors += 1;
        self
    }

    /// The whole file.
    pub fn build(&self) -> Vec<u8> {
        self.build_with_counts(self.tensors, self.keys)
    }

    /// The whole file with other counts in its first bytes.
    pub fn build_with_counts(&self, tensors: u64, keys: u64) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend_from_slice(&self.version.unwrap_or(3).to_le_bytes());
        file.extend_from_slice(&tensors.to_le_bytes());
        file.extend_from_slice(&keys.to_le_bytes());
        file.extend_from_slice(&self.pairs);
        file.extend_from_slice(&self.list);
        let data = file.len().next_multiple_of(32);
        file.resize(data + self.data_len as usize, 0);
        file
    }
}

/// The start of a list: type and number of its items.
pub fn list_head(kind: u32, len: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}
