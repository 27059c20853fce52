/// A graphics card.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gpu {
    /// Model name, or the vendor and device numbers.
    pub name: String,
    /// `nvidia`, `amd`, `intel` or the PCI vendor number.
    pub vendor: String,
    /// Memory in bytes, when known.
    pub total: Option<u64>,
    /// Free memory in bytes, when known.
    pub free: Option<u64>,
}

pub(crate) fn all() -> Vec<Gpu> {
    Vec::new()
}
