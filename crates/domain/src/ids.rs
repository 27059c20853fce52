use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The registry's own name of a model: unique, stable between scans, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelKey(Arc<str>);

impl ModelKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ModelKey {
    fn from(value: &str) -> Self {
        Self(value.into())
    }
}

impl From<String> for ModelKey {
    fn from(value: String) -> Self {
        Self(value.into())
    }
}

impl Borrow<str> for ModelKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// One life of one engine process. Never reused while the app runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One client request, for logs and the list of running requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
/// Words of the management paths, which no model may be called (management contract 1.1).
const RESERVED: &[&str] = &[
    "ps",
    "index",
    "pull",
    "load",
    "unload",
    "sse",
    "download",
    "downloads",
    "jobs",
    "status",
    "info",
    "start",
    "stop",
    "catalog",
    "filter",
    "lookup",
    "save",
    "by-id",
];

/// May no model be called so? Upper and lower case are the same here.
pub fn is_reserved_name(name: &str) -> bool {
    RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name))
}
