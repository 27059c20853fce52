//! Ollama's store on disk (contract `compat/ollama.md` 11): manifests that name models, blobs that hold their contents.
//!
//! ```text
//! <root>/manifests/<host>/<namespace>/<model>/<tag>   the manifest, exactly as the registry sent it
//! <root>/blobs/sha256-<64 hex>                        contents
//! <root>/links/<64 hex>/model-00001-of-00003.gguf     ours alone: the parts of a split model under the names the engine
//!                                                     derives the others from; the folder stands for all parts
//! <root>/tmp/                                         ours alone: files not yet complete
//! ```
//!
//! Must not know: HTTP, a registry's protocol, engines, the model library. All calls block: async callers run them on a
//! blocking thread. A store is opened to read (another program's, nothing is ever written there) or to write (ours).
//!
//! A model becomes visible by [`Store::write_manifest`] alone, and only when every blob it names is there. Writers that
//! need several steps keep what they have already stored from being cleaned away with [`Store::hold`].
//!
//! Split models: a manifest may list several layers of [`media::MODEL`]; they are the parts, in order.
//! [`Store::model_paths`] gives the paths to hand to the engine.

mod blob;
mod contents;
mod digest;
mod error;
mod listing;
mod manifest;
mod paths;
mod store;

pub use blob::BlobWriter;
pub use digest::Digest;
pub use domain::RegistryName as Name;
pub use error::StoreError;
pub use listing::{Listing, StoredModel};
pub use manifest::{Config, Layer, Manifest, media};
pub use paths::is_device_name;
pub use store::{Access, Hold, Store};
