//! Ollama's `/api/*` (contract `compat/ollama.md` 1 to 6): requests into the domain form, replies and NDJSON streams back.
//!
//! A handler works in these steps: parse the call; [`lookup_name`] and the registry, else [`unknown_model`]; `plan` with the
//! entry; lease; the engine body of [`crate::engine`]; then [`ReplyStream`] or [`reply`].

mod embed;
mod error;
mod fields;
mod lists;
mod message;
mod name;
mod options;
mod profile;
mod progress;
mod reply;
mod request;
mod show;
mod stored;
mod stream;
mod waiting;

pub use embed::{EmbedCall, input_too_long, no_room_for_input};
pub use error::{Route, error, unknown_model};
pub use lists::{capability_words, display_name, parameter_size, ps, tags, version};
pub use name::lookup_name;
pub(crate) use options::parse_given as options_given;
pub use profile::apply_profile;
pub use progress::{PullLines, error_line, status_line, success, transfer_line, work_line};
pub use reply::{LoadReason, ReplyHead, Shape, load_reply, render_only_reply, reply};
pub use request::{
    ChatCall, ChatJob, GenerateCall, GenerateJob, GenerateMode, Plan, continue_prompt, unreadable_context,
};
pub use show::{ModelHeader, ShowCall, stored_messages};
pub use stored::{CopyCall, CreateBase, CreateCall, CreateFile, DeleteCall, TransferCall, digest_hex, invalid_digest};
pub use stream::ReplyStream;
pub use waiting::ReplyForm;
