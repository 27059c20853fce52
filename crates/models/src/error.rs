use thiserror::Error;

/// Why the library could not do what was asked.
#[derive(Debug, Error)]
pub enum ModelsError {
    /// The library's thread could not be started.
    #[error("could not start the model library's thread: {0}")]
    Thread(std::io::Error),
    /// A model file could not be read.
    #[error("the model file '{name}': {source}")]
    Read {
        /// File name without its folder.
        name: String,
        /// Why.
        source: gguf::GgufError,
    },
}
