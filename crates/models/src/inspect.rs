use std::path::Path;

use domain::ModelFacts;
use gguf::{Detail, Purpose};

use crate::ModelsError;
use crate::record::read_header;

/// What a GGUF file is.
#[derive(Debug, Clone, PartialEq)]
pub enum FileKind {
    /// A model, or the first part of one.
    Model(Box<ModelFacts>),
    /// A further part of a split model.
    Part,
    /// A projector.
    Projector,
    /// A LoRA adapter.
    Adapter,
    /// Something else; the words complete "it is …".
    Other(String),
}

/// Reads the header of a file that is not (yet) in the library. Blocking.
///
/// # Errors
/// [`ModelsError::Read`] when it is not sound GGUF.
pub fn inspect(path: &Path) -> Result<FileKind, ModelsError> {
    let header = read_header(path, Detail::Facts).map_err(|source| ModelsError::Read {
        name: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        source,
    })?;
    Ok(match gguf::purpose(&header) {
        Purpose::Model => FileKind::Model(Box::new(gguf::facts(&header))),
        Purpose::Part => FileKind::Part,
        Purpose::Projector => FileKind::Projector,
        Purpose::Other(_) if header.metadata.text("general.type") == Some("adapter") => FileKind::Adapter,
        Purpose::Other(what) => FileKind::Other(what.to_owned()),
    })
}
