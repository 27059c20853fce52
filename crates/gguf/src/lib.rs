//! Reads the header of GGUF model files: metadata, tensor list, and the facts the product needs from them.
//!
//! A model file is hostile input (promise D7): every count, length and offset is checked against the size of the file
//! and against fixed limits before anything is allocated, no `unsafe` is used, and no input makes the reader panic.
//! Long arrays (token lists) are walked, not kept, unless asked for.
//!
//! Must not know: file systems, the registry, engines. Values come in through `Read + Seek`.
//!
//! ```
//! # use std::io::Cursor;
//! use gguf::{Detail, Header};
//! # let file = gguf::craft::Craft::new().text("general.architecture", "llama").tensor("w", &[32], 0).build();
//! let header = Header::read(&mut Cursor::new(&file), file.len() as u64, Detail::Facts)?;
//! assert_eq!(header.architecture(), "llama");
//! assert_eq!(gguf::facts(&header).parameters, 32);
//! # Ok::<(), gguf::GgufError>(())
//! ```

#[cfg(feature = "craft")]
pub mod craft;
mod error;
mod facts;
mod header;
mod quant;
mod quant_name;
mod source;
mod split;
mod value;

pub use error::GgufError;
pub use facts::{Projector, Purpose, capabilities, facts, projector, purpose, template_capabilities};
pub use header::{Detail, Header, TensorInfo};
pub use quant::{QuantType, file_type_label, label_bits, quant_type};
pub use quant_name::{PREFERRED_BITS, normal_quant, split_quant};
pub use split::{SplitInfo, SplitName, SplitProblem, check_parts};
pub use value::{Array, Items, Kind, Metadata, Value};
