//! The WebSocket protocol of LM Studio's libraries (LM Studio contract 10 to 12): frames, model and instance infos,
//! key-value configurations, chat histories, prediction streams, errors, log events and downloads.
//!
//! The JavaScript library drops what it cannot validate and then waits for ever, so every shape here is exact (contract
//! 10.3, 11): integers are integers, nothing optional is null, nothing required is missing.

mod config;
mod downloads;
mod error;
mod files;
mod frames;
mod history;
mod info;
mod logs;
mod predict;
mod prediction;
mod replies;
mod requests;

pub use config::{KvConfig, KvStack, LoadWish, load_config, load_wish};
pub use downloads::{
    DownloadMessage, DownloadOption, DownloadStep, DownloadUpdate, Room, download_options, download_step,
    download_target, search_results,
};
pub use error::WireError;
pub use files::file_type;
pub use frames::{
    Auth, ClientFrame, auth_refused, auth_success, channel_ack, channel_close, channel_error, channel_send,
    keep_alive_ack, parse_auth, rpc_error, rpc_result, signal_error, warning, writable_signal_error,
};
pub use history::{FileSource, History, UploadedFile, raw_prompt};
pub use info::{Domain, InstanceFacts, ModelUse, instance_info, model_info, usage_estimate};
pub use logs::{LogEvent, input_log, log_line, output_log};
pub use predict::{PredictStream, Stats, StopReason, success_message};
pub use prediction::{Overflow, Prediction, drop_for_overflow};
pub use replies::{
    Authentication, Embedding, Formatted, GetOrLoadMessage, LoadModelMessage, ProcessingState, ProcessingStatus,
    ServerInfo, ServerVersion, TokenCount, Tokens, Uploaded, no_catalog, no_staff_picks,
};
pub use requests::{
    ApplyPromptTemplate, ByIdentifier, CompleteRawText, DownloadModel, DownloadOptionsOf, EmbedString,
    EstimateModelUsage, GetModelInfo, GetOrLoad, InputString, LoadModel, ModelKeyOnly, Notify, OfSpecifier, Predict,
    Query, SearchModels, Specifier, TemplateOptions, UploadFile,
};
