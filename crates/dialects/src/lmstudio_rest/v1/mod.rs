//! LM Studio's native REST API, `/api/v1/*` (contract 7).

mod chat;
mod chat_stream;
mod download;
mod error;
mod load;
mod models;

pub use chat::{ChatCall, ChatResult, OutputItem, is_response_id};
pub use chat_stream::{ChatForm, ChatStream};
pub use download::{DownloadCall, download_started, download_status, downloads};
pub use error::error;
pub use load::{LoadCall, LoadReply, UnloadCall, unload_reply};
pub use models::models;

/// A count of seconds with the digits people want.
fn seconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}
