use std::io::{Read, Seek};

use crate::quant::label_of_tensors;
use crate::source::Source;
use crate::value::{Array, Items, Kind, Metadata, Value};
use crate::{GgufError, SplitInfo, file_type_label, quant_type};

/// How much of the header to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What a model list needs: single values and short numeric lists; tensors only as sums.
    Facts,
    /// Also the list of tensors.
    Tensors,
    /// Also all lists in full, as far as the memory limit allows.
    Verbose,
}

impl Detail {
    /// Memory that a header may take, in bytes. Longer lists stay summaries; longer single values are refused.
    fn budget(self) -> usize {
        match self {
            Self::Facts => 8 << 20,
            Self::Tensors => 48 << 20,
            Self::Verbose => 128 << 20,
        }
    }
}

/// Most metadata keys. Real files have some tens.
const MAX_KEYS: u64 = 65_536;
/// Longest key, from the format's specification.
const MAX_KEY: u64 = 65_535;
/// Most tensors in one file. The largest real models have some thousands.
const MAX_TENSORS: u64 = 1 << 20;
/// Longest tensor name. The engine refuses 64 and more; some converters write a little longer.
const MAX_TENSOR_NAME: u64 = 4096;
/// Most dimensions of a tensor, as in the engine.
const MAX_DIMENSIONS: u32 = 4;
/// Lists inside lists. Real files have none.
const MAX_DEPTH: u32 = 4;
/// Most lists in one file, nested ones included.
const MAX_LISTS: u64 = 65_536;
/// Longest text kept. Chat templates and licences stay below 200 KiB.
const MAX_TEXT: u64 = 2 << 20;
/// Longest numeric list kept without being asked: one number per layer.
const SHORT_LIST: u64 = 1024;
/// What a kept key, value or tensor costs beside its text.
const OVERHEAD: usize = 96;

/// One tensor of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Storage type code; [`quant_type`] names it.
    pub kind: u32,
    /// Dimensions, fastest first.
    pub shape: Vec<u64>,
}

impl TensorInfo {
    /// Name of the storage type, or its number when it is not known.
    pub fn kind_name(&self) -> String {
        quant_type(self.kind).map_or_else(|| format!("type {}", self.kind), |quant| quant.name.to_owned())
    }
}

/// A GGUF header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Metadata.
    pub metadata: Metadata,
    /// The tensors; empty with [`Detail::Facts`].
    pub tensors: Vec<TensorInfo>,
    /// Number of tensors in this file.
    pub tensor_count: u64,
    /// Elements of all tensors in this file.
    pub parameters: u64,
    /// Bytes of all tensors in this file.
    pub tensor_bytes: u64,
    /// Where tensor data starts.
    pub data_offset: u64,
    /// The vocabulary holds fill-in-the-middle tokens, by their usual texts.
    pub fim_vocabulary: bool,
    /// Label of the storage type that most elements have.
    dominant: Option<&'static str>,
}

impl Header {
    /// Reads the header of a file of `file_len` bytes. Nothing behind that length is read.
    ///
    /// # Errors
    /// [`GgufError`] when the file is not GGUF, damaged, incomplete, or beyond the limits. Never panics.
    pub fn read<R: Read + Seek>(reader: &mut R, file_len: u64, detail: Detail) -> Result<Self, GgufError> {
        if file_len < 4 {
            return Err(GgufError::NotGguf);
        }
        let mut parser = Parser {
            source: Source::new(reader, file_len)?,
            detail,
            left: detail.budget(),
            fim: 0,
            lists: 0,
        };
        parser.header()
    }

    /// `general.architecture`, empty when absent.
    pub fn architecture(&self) -> &str {
        self.metadata.text("general.architecture").unwrap_or_default()
    }

    /// The value of `<architecture>.<key>`.
    pub fn arch_value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&format!("{}.{key}", self.architecture()))
    }

    /// A non-negative whole number at `<architecture>.<key>`.
    pub fn arch_uint(&self, key: &str) -> Option<u64> {
        self.arch_value(key).and_then(Value::as_u64)
    }

    /// Quantization label: from `general.file_type`, else from the tensors, else `unknown`.
    pub fn quantization(&self) -> &'static str {
        self.metadata
            .uint32("general.file_type")
            .and_then(file_type_label)
            .or(self.dominant)
            .unwrap_or("unknown")
    }

    /// Average bits per element of the tensor data; 0 without tensors.
    pub fn bits_per_weight(&self) -> f64 {
        if self.parameters == 0 {
            0.0
        } else {
            self.tensor_bytes as f64 * 8.0 / self.parameters as f64
        }
    }

    /// What the file says about being one of several.
    pub fn split(&self) -> Option<SplitInfo> {
        let count = self.metadata.uint32("split.count").filter(|count| *count > 1)?;
        Some(SplitInfo {
            number: self.metadata.uint32("split.no").unwrap_or(0),
            count,
            tensors_of_all: self.metadata.uint("split.tensors.count"),
        })
    }
}

/// Number of distinct storage type codes whose use is counted.
const COUNTED_TYPES: usize = 64;
/// The fill-in-the-middle prefix and suffix tokens that llama.cpp looks for in a vocabulary.
const FIM_PREFIX: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
];
const FIM_SUFFIX: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
];

struct Parser<'r, R> {
    source: Source<'r, R>,
    detail: Detail,
    /// Memory left to keep things in.
    left: usize,
    /// Bit 0: a prefix token was seen, bit 1: a suffix token.
    fim: u8,
    /// Lists seen so far.
    lists: u64,
}

impl<R: Read + Seek> Parser<'_, R> {
    fn header(&mut self) -> Result<Header, GgufError> {
        if self.source.array::<4>()? != *b"GGUF" {
            return Err(GgufError::NotGguf);
        }
        let version = self.source.u32()?;
        match version {
            2 | 3 => {}
            // A small number with its bytes the other way round.
            swapped if swapped != 0 && swapped.trailing_zeros() >= 16 => return Err(GgufError::BigEndian),
            other => return Err(GgufError::Version(other)),
        }
        let tensor_count = self.source.u64()?;
        let key_count = self.source.u64()?;
        // A key takes at least 13 bytes, a tensor 24.
        limit("keys", key_count, MAX_KEYS)?;
        limit("tensors", tensor_count, MAX_TENSORS)?;
        self.source.check_count("keys", key_count, 13)?;
        self.source.check_count("tensors", tensor_count, 24)?;

        self.source.part = "metadata";
        let mut pairs = Vec::with_capacity(key_count.min(256) as usize);
        for _ in 0..key_count {
            let len = self.source.string_len()?;
            limit("bytes in a key", len, MAX_KEY)?;
            self.charge(len as usize)?;
            let key = self.source.text(len as usize)?;
            let value = self.value(&key)?;
            pairs.push((key, value));
        }
        let metadata = Metadata::new(pairs)?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(value) => value
                .as_u64()
                .filter(|n| n.is_power_of_two() && *n <= 1 << 30)
                .ok_or_else(|| GgufError::Invalid("general.alignment is not a usable power of two".into()))?,
        };

        self.source.part = "tensor list";
        let mut sums = Sums {
            bytes: 0,
            parameters: 0,
            end: 0,
            by_type: [0; COUNTED_TYPES],
            unknown_type: false,
        };
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            if let Some(tensor) = self.tensor(alignment, &mut sums)? {
                tensors.push(tensor);
            }
        }
        let have = self.source.file_len();
        let overflow = || damaged("tensor offsets overflow");
        let data_offset = self
            .source
            .offset()
            .checked_next_multiple_of(alignment)
            .ok_or_else(overflow)?;
        let needed = data_offset.checked_add(sums.end).ok_or_else(overflow)?;
        if tensor_count > 0 && needed > have {
            return Err(GgufError::Incomplete { needed, have });
        }
        if sums.unknown_type {
            // The size of an unknown type cannot be computed; the rest of the file is a fair figure.
            sums.bytes = have.saturating_sub(data_offset);
        }
        let dominant = sums
            .by_type
            .iter()
            .enumerate()
            .max_by_key(|(_, n)| **n)
            .filter(|(_, n)| **n > 0);
        Ok(Header {
            version,
            metadata,
            tensors,
            tensor_count,
            parameters: sums.parameters,
            tensor_bytes: sums.bytes,
            data_offset,
            fim_vocabulary: self.fim == 3,
            dominant: dominant
                .and_then(|(code, _)| quant_type(code as u32))
                .map(label_of_tensors),
        })
    }

    /// Takes `bytes` and the fixed overhead from the memory limit.
    fn charge(&mut self, bytes: usize) -> Result<(), GgufError> {
        let cost = bytes.saturating_add(OVERHEAD);
        self.left = self.left.checked_sub(cost).ok_or(GgufError::Limit {
            what: "bytes of metadata",
            value: (self.detail.budget() - self.left).saturating_add(cost) as u64,
            limit: self.detail.budget() as u64,
        })?;
        Ok(())
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let kind = Kind::from_code(self.source.u32()?)?;
        Ok(match kind {
            Kind::String => {
                let len = self.source.string_len()?;
                if len > MAX_TEXT {
                    self.source.skip(len)?;
                    return Ok(Value::LongText(len));
                }
                self.charge(len as usize)?;
                Value::Text(self.source.text(len as usize)?)
            }
            Kind::Array => Value::Array(self.list(key, 1)?),
            Kind::Bool => Value::Bool(self.source.array::<1>()? != [0]),
            Kind::F32 => Value::Float(f64::from(f32::from_le_bytes(self.source.array()?))),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.source.array()?)),
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => Value::Int(self.int(kind)?),
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Value::Uint(self.uint(kind)?),
        })
    }

    fn uint(&mut self, kind: Kind) -> Result<u64, GgufError> {
        Ok(match kind {
            Kind::U8 => self.source.array::<1>()?[0].into(),
            Kind::U16 => u16::from_le_bytes(self.source.array()?).into(),
            Kind::U32 => self.source.u32()?.into(),
            _ => self.source.u64()?,
        })
    }

    fn int(&mut self, kind: Kind) -> Result<i64, GgufError> {
        Ok(match kind {
            Kind::I8 => i8::from_le_bytes(self.source.array()?).into(),
            Kind::I16 => i16::from_le_bytes(self.source.array()?).into(),
            Kind::I32 => i32::from_le_bytes(self.source.array()?).into(),
            _ => i64::from_le_bytes(self.source.array()?),
        })
    }

    fn list(&mut self, key: &str, depth: u32) -> Result<Array, GgufError> {
        if depth > MAX_DEPTH {
            return Err(damaged("lists are nested too deep"));
        }
        self.lists += 1;
        limit("lists", self.lists, MAX_LISTS)?;
        let kind = Kind::from_code(self.source.u32()?)?;
        let len = self.source.u64()?;
        self.source.check_count("list items", len, kind.min_size())?;
        let verbose = self.detail == Detail::Verbose;
        let items = match kind {
            Kind::String => {
                if verbose {
                    self.texts(len)?
                } else {
                    self.walk_strings(key, len)?;
                    None
                }
            }
            Kind::Array => self.lists(len, depth, verbose)?,
            fixed => {
                let bytes = len.saturating_mul(8);
                if (verbose || len <= SHORT_LIST) && bytes + OVERHEAD as u64 <= self.left as u64 {
                    self.charge(bytes as usize)?;
                    Some(self.numbers(fixed, len)?)
                } else {
                    self.source.skip(len.saturating_mul(fixed.min_size()))?;
                    None
                }
            }
        };
        Ok(Array { kind, len, items })
    }

    /// All numbers of a list that fits into the memory limit.
    fn numbers(&mut self, kind: Kind, len: u64) -> Result<Items, GgufError> {
        let range = 0..len;
        Ok(match kind {
            Kind::Bool => Items::Bool(
                range
                    .map(|_| Ok(self.source.array::<1>()? != [0]))
                    .collect::<Result<_, GgufError>>()?,
            ),
            Kind::F32 => Items::Float(
                range
                    .map(|_| Ok(f64::from(f32::from_le_bytes(self.source.array()?))))
                    .collect::<Result<_, GgufError>>()?,
            ),
            Kind::F64 => Items::Float(
                range
                    .map(|_| Ok(f64::from_le_bytes(self.source.array()?)))
                    .collect::<Result<_, GgufError>>()?,
            ),
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => {
                Items::Int(range.map(|_| self.int(kind)).collect::<Result<_, _>>()?)
            }
            _ => Items::Uint(range.map(|_| self.uint(kind)).collect::<Result<_, _>>()?),
        })
    }

    /// All texts of a list, or none of them when they do not fit into the memory limit.
    fn texts(&mut self, len: u64) -> Result<Option<Items>, GgufError> {
        let before = self.left;
        let mut items: Vec<String> = Vec::new();
        for done in 0..len {
            let bytes = self.source.string_len()?;
            // 24 for the handle, twice because the list grows by doubling, 16 for the allocator.
            let cost = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(64);
            let Some(left) = self.left.checked_sub(cost) else {
                self.left = before;
                drop(items);
                self.source.skip(bytes)?;
                self.source.skip_strings(len - done - 1, |_| {})?;
                return Ok(None);
            };
            self.left = left;
            items.push(self.source.text(bytes as usize)?);
        }
        Ok(Some(Items::Text(items)))
    }

    fn lists(&mut self, len: u64, depth: u32, verbose: bool) -> Result<Option<Items>, GgufError> {
        let mut kept = verbose.then(Vec::new);
        for _ in 0..len {
            let inner = self.list("", depth + 1)?;
            if let Some(items) = &mut kept {
                if self.left < 2 * OVERHEAD {
                    kept = None;
                } else {
                    self.left -= 2 * OVERHEAD;
                    items.push(inner);
                }
            }
        }
        Ok(kept.map(Items::Nested))
    }

    fn walk_strings(&mut self, key: &str, len: u64) -> Result<(), GgufError> {
        if key != "tokenizer.ggml.tokens" {
            return self.source.skip_strings(len, |_| {});
        }
        let mut fim = 0;
        self.source.skip_strings(len, |token| {
            // All of the looked-for tokens begin with '<' or with the word mark U+2581.
            if matches!(token.first(), Some(b'<' | 0xe2)) && token.len() <= 20 {
                fim |= u8::from(FIM_PREFIX.iter().any(|known| known.as_bytes() == token));
                fim |= u8::from(FIM_SUFFIX.iter().any(|known| known.as_bytes() == token)) << 1;
            }
        })?;
        self.fim |= fim;
        Ok(())
    }

    fn tensor(&mut self, alignment: u64, sums: &mut Sums) -> Result<Option<TensorInfo>, GgufError> {
        let name_len = self.source.string_len()?;
        limit("bytes in a tensor's name", name_len, MAX_TENSOR_NAME)?;
        let keep = self.detail != Detail::Facts;
        let name = if keep {
            self.charge(name_len as usize)?;
            self.source.text(name_len as usize)?
        } else {
            self.source.skip(name_len)?;
            String::new()
        };
        let dimensions = self.source.u32()?;
        limit("dimensions of a tensor", dimensions.into(), MAX_DIMENSIONS.into())?;
        let mut shape = [1_u64; MAX_DIMENSIONS as usize];
        let shape = shape.get_mut(..dimensions as usize).unwrap_or_default();
        let mut elements = 1_u64;
        for size in &mut *shape {
            *size = self.source.u64()?;
            elements = elements
                .checked_mul(*size)
                .ok_or_else(|| damaged("a tensor is larger than any memory"))?;
        }
        let kind = self.source.u32()?;
        let offset = self.source.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(damaged("a tensor's data is not aligned"));
        }
        let bytes = if let Some(quant) = quant_type(kind) {
            let row = shape.first().copied().unwrap_or(1);
            if !row.is_multiple_of(quant.block) {
                return Err(GgufError::Invalid(format!(
                    "a tensor of type {} has rows of {row}",
                    quant.name
                )));
            }
            (elements / quant.block).checked_mul(quant.bytes)
        } else {
            sums.unknown_type = true;
            Some(0)
        };
        let too_large = || damaged("tensor sizes overflow");
        let bytes = bytes.ok_or_else(too_large)?;
        sums.bytes = sums.bytes.checked_add(bytes).ok_or_else(too_large)?;
        sums.parameters = sums.parameters.checked_add(elements).ok_or_else(too_large)?;
        sums.end = sums.end.max(offset.checked_add(bytes).ok_or_else(too_large)?);
        if let Some(count) = sums.by_type.get_mut(kind as usize) {
            *count = count.saturating_add(elements);
        }
        Ok(keep.then(|| TensorInfo {
            name,
            kind,
            shape: shape.to_vec(),
        }))
    }
}

/// Running sums over the tensor list.
struct Sums {
    bytes: u64,
    parameters: u64,
    /// End of the last tensor, relative to the start of the data.
    end: u64,
    by_type: [u64; COUNTED_TYPES],
    unknown_type: bool,
}

fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), GgufError> {
    if value > limit {
        Err(GgufError::Limit { what, value, limit })
    } else {
        Ok(())
    }
}

fn damaged(what: &str) -> GgufError {
    GgufError::Invalid(what.to_owned())
}
