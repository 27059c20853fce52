use crate::GgufError;

/// GGUF's value types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    pub(crate) fn from_code(code: u32) -> Result<Self, GgufError> {
        Ok(match code {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            other => return Err(GgufError::Invalid(format!("unknown value type {other}"))),
        })
    }

    /// Bytes of one value in the file; for strings and arrays the least possible.
    pub(crate) fn min_size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// One metadata value. Integers of all widths are kept as the widest of their sign.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned integer.
    Uint(u64),
    /// Signed integer.
    Int(i64),
    /// 32- or 64-bit float.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text; invalid UTF-8 is replaced.
    Text(String),
    /// A text too long to keep; its length in bytes.
    LongText(u64),
    /// A list.
    Array(Array),
}

impl Value {
    /// The text of a [`Value::Text`].
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A non-negative whole number.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(n) => Some(*n),
            Self::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

/// A list: always its type and length, its items only when asked for (or when it is short and numeric).
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Type of the items.
    pub kind: Kind,
    /// Number of items.
    pub len: u64,
    /// The items, when they were kept.
    pub items: Option<Items>,
}

/// Items of an [`Array`].
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Unsigned integers.
    Uint(Vec<u64>),
    /// Signed integers.
    Int(Vec<i64>),
    /// Floats.
    Float(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    Text(Vec<String>),
    /// Lists of lists.
    Nested(Vec<Array>),
}

impl Items {
    /// The items as non-negative whole numbers, negative ones as 0; nothing for other types.
    pub fn to_u64s(&self) -> Option<Vec<u64>> {
        match self {
            Self::Uint(items) => Some(items.clone()),
            Self::Int(items) => Some(items.iter().map(|n| u64::try_from(*n).unwrap_or(0)).collect()),
            _ => None,
        }
    }
}

/// Metadata in file order, with look-up by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    /// Positions in `pairs`, sorted by key.
    by_key: Vec<u32>,
}

impl Metadata {
    /// Refuses a key that occurs twice, as the engine does.
    pub(crate) fn new(pairs: Vec<(String, Value)>) -> Result<Self, GgufError> {
        let mut by_key: Vec<u32> = (0..pairs.len() as u32).collect();
        let key = |index: &u32| {
            pairs
                .get(*index as usize)
                .map(|(key, _)| key.as_str())
                .unwrap_or_default()
        };
        by_key.sort_by(|a, b| key(a).cmp(key(b)));
        let twice = by_key.windows(2).find_map(|pair| match pair {
            [a, b] if key(a) == key(b) => Some(key(a).chars().take(80).collect::<String>()),
            _ => None,
        });
        if let Some(twice) = twice {
            return Err(GgufError::Invalid(format!("the key '{twice}' occurs twice")));
        }
        Ok(Self { pairs, by_key })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let at = |index: &u32| self.pairs.get(*index as usize);
        let found = self
            .by_key
            .binary_search_by(|index| at(index).map_or("", |(k, _)| k.as_str()).cmp(key))
            .ok()?;
        self.by_key.get(found).and_then(at).map(|(_, value)| value)
    }

    /// All pairs in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A text, `None` when absent or of another type.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// A non-negative whole number.
    pub fn uint(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::as_u64)
    }

    /// A non-negative whole number below 2^32.
    pub fn uint32(&self, key: &str) -> Option<u32> {
        self.uint(key).and_then(|n| u32::try_from(n).ok())
    }

    /// A truth value.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }
}
