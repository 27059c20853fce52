//! Results of calls and messages of load channels (contract 10.4 to 10.9).

use serde::Serialize;
use serde_json::{Value, json};

macro_rules! replies {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field:meta])* $member:ident: $kind:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Serialize)]
            #[serde(rename_all = "camelCase")]
            pub struct $name {
                $($(#[$field])* pub $member: $kind,)*
            }
        )*
    };
}

replies! {
    /// Of `applyPromptTemplate`.
    Formatted {
        /// The prompt.
        formatted: String,
    }
    /// Of `tokenize`.
    Tokens {
        /// Numbers in the vocabulary.
        tokens: Vec<i64>,
    }
    /// Of `countTokens`.
    TokenCount {
        /// How many.
        token_count: usize,
    }
    /// Of `embedString`.
    Embedding {
        /// The vector.
        embedding: Vec<f32>,
    }
    /// Of `getInstanceProcessingState`.
    ProcessingState {
        /// What it does.
        status: ProcessingStatus,
        /// Requests that wait for it.
        queued: u32,
    }
    /// Of `version`.
    ServerVersion {
        /// The LM Studio version whose behaviour is claimed.
        version: String,
        /// Its build.
        build: u32,
    }
    /// Of `info`.
    ServerInfo {
        /// This process.
        pid: u32,
        /// It runs without a window of LM Studio's.
        is_daemon: bool,
        /// The LM Studio version whose behaviour is claimed.
        version: String,
    }
    /// Of `uploadFileBase64`.
    Uploaded {
        /// What a conversation names the file by.
        identifier: String,
        /// From [`super::file_type`].
        file_type: &'static str,
        /// Its length.
        size_bytes: usize,
    }
    /// Of `isAuthenticated` and `getAuthenticationStatus`.
    Authentication {
        /// Signed in at LM Studio's hub.
        authenticated: bool,
    }
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessingStatus {
    /// Nothing.
    Idle,
    /// It reads a prompt or generates.
    Generating,
    /// It makes vectors.
    ComputingEmbedding,
}

/// The result of `getModelCatalog`: there is no catalogue here.
pub fn no_catalog() -> Value {
    json!({"models": []})
}

/// The result of `fuzzyFindStaffPicks`: nobody picks here.
pub fn no_staff_picks() -> Value {
    json!({"results": []})
}

/// Messages of `getOrLoad`. Every `info` is of an instance, but that of `StartLoading`, which is of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum GetOrLoadMessage<'a> {
    /// It is there; nothing follows.
    AlreadyLoaded {
        /// The instance.
        info: &'a Value,
    },
    /// An instance that makes way.
    #[serde(rename = "unloadingOtherJITModel")]
    UnloadingOtherJitModel {
        /// The instance.
        info: &'a Value,
    },
    /// The load begins.
    StartLoading {
        /// The instance's name.
        identifier: &'a str,
        /// The model.
        info: &'a Value,
    },
    /// How far it is, 0 to 1.
    LoadProgress {
        /// Share.
        progress: f32,
    },
    /// The last message.
    LoadSuccess {
        /// The instance.
        info: &'a Value,
    },
}

/// Messages of `loadModel`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum LoadModelMessage<'a> {
    /// The model is known, and the load begins.
    Resolved {
        /// The model.
        info: &'a Value,
    },
    /// How far it is, 0 to 1.
    Progress {
        /// Share.
        progress: f32,
    },
    /// The last message.
    Success {
        /// The instance.
        info: &'a Value,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever JavaScript cannot validate it drops, and waits for ever.
    #[test]
    fn exact_words() {
        let info = json!({});
        let load = |message: GetOrLoadMessage<'_>| serde_json::to_value(message).unwrap();
        let own = |message: LoadModelMessage<'_>| serde_json::to_value(message).unwrap();
        for (message, expected) in [
            (
                load(GetOrLoadMessage::AlreadyLoaded { info: &info }),
                r#"{"type":"alreadyLoaded","info":{}}"#,
            ),
            (
                load(GetOrLoadMessage::UnloadingOtherJitModel { info: &info }),
                r#"{"type":"unloadingOtherJITModel","info":{}}"#,
            ),
            (
                load(GetOrLoadMessage::StartLoading {
                    identifier: "a",
                    info: &info,
                }),
                r#"{"type":"startLoading","identifier":"a","info":{}}"#,
            ),
            (
                load(GetOrLoadMessage::LoadProgress { progress: 0.5 }),
                r#"{"type":"loadProgress","progress":0.5}"#,
            ),
            (
                load(GetOrLoadMessage::LoadSuccess { info: &info }),
                r#"{"type":"loadSuccess","info":{}}"#,
            ),
            (
                own(LoadModelMessage::Resolved { info: &info }),
                r#"{"type":"resolved","info":{}}"#,
            ),
            (
                own(LoadModelMessage::Progress { progress: 1.0 }),
                r#"{"type":"progress","progress":1.0}"#,
            ),
            (
                own(LoadModelMessage::Success { info: &info }),
                r#"{"type":"success","info":{}}"#,
            ),
        ] {
            assert_eq!(message.to_string(), expected);
        }
        let state = ProcessingState {
            status: ProcessingStatus::ComputingEmbedding,
            queued: 2,
        };
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            r#"{"status":"computingEmbedding","queued":2}"#
        );
        let uploaded = Uploaded {
            identifier: "i".into(),
            file_type: "image",
            size_bytes: 8,
        };
        assert_eq!(
            serde_json::to_string(&uploaded).unwrap(),
            r#"{"identifier":"i","fileType":"image","sizeBytes":8}"#
        );
        assert_eq!(
            serde_json::to_string(&TokenCount { token_count: 3 }).unwrap(),
            r#"{"tokenCount":3}"#
        );
        let info = ServerInfo {
            pid: 1,
            is_daemon: false,
            version: "0".into(),
        };
        assert_eq!(
            serde_json::to_string(&info).unwrap(),
            r#"{"pid":1,"isDaemon":false,"version":"0"}"#
        );
    }
}
