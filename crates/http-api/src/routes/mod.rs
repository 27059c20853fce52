//! Every route there is, as data. The matcher, `/openapi.json`, the guard and the coverage test read the same table.

mod matcher;
mod openapi;
mod table;

pub(crate) use matcher::{Found, allow, matcher};
pub(crate) use openapi::document;
pub use table::ROUTES;

/// A method of the table. `HEAD` is answered wherever `GET` is, `OPTIONS` everywhere; `Head` stands for a path that has no
/// `GET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the HTTP method of the same name")]
pub enum Verb {
    Get,
    Head,
    Post,
    Delete,
}

impl Verb {
    /// The method of the `http` crate.
    pub fn to_http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Head => http::Method::HEAD,
            Self::Post => http::Method::POST,
            Self::Delete => http::Method::DELETE,
        }
    }

    /// Lower case, as OpenAPI writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Post => "post",
            Self::Delete => "delete",
        }
    }
}

/// Whose API a route belongs to. Decides the form of its errors (management contract 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/api/*` of Ollama.
    Ollama,
    /// `/v1/*` of OpenAI.
    OpenAi,
    /// `/v1/messages*`.
    Anthropic,
    /// llama-server's bare paths.
    LlamaCpp,
    /// `/api/v0/*` of LM Studio, and what its libraries find it by.
    LmStudio,
    /// `/api/v1/*` of LM Studio.
    LmStudioV1,
    /// Our own management routes.
    LlamaRunner,
    /// Speech in both directions: OpenAI's routes with codes of our own (audio contract 6).
    Audio,
}

impl Dialect {
    /// For people and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::LlamaCpp => "llamacpp",
            Self::LmStudio => "lmstudio",
            Self::LmStudioV1 => "lmstudio-v1",
            Self::LlamaRunner => "llamarunner",
            Self::Audio => "audio",
        }
    }
}

/// Who may ask (promises S3 and S8). A route without a class does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Anyone, key or not: liveness.
    Public,
    /// Use of models.
    Inference,
    /// Sight and control of the server.
    Management,
    /// The window's files: a link from elsewhere may open them.
    UiShell,
}

impl Class {
    /// For `/openapi.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Inference => "inference",
            Self::Management => "management",
            Self::UiShell => "ui",
        }
    }
}

/// What a route does: one handler each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described by the summary of its route")]
pub enum Operation {
    Root,
    Ui,
    Health,
    OpenApi,
    OllamaVersion,
    OllamaStatus,
    OllamaTags,
    OllamaPs,
    OllamaShow,
    OllamaGenerate,
    OllamaChat,
    OllamaEmbed,
    OllamaEmbeddings,
    OllamaMe,
    OllamaWebSearch,
    OllamaWebFetch,
    OllamaRecommendations,
    OllamaPull,
    OllamaPush,
    OllamaCreate,
    OllamaCopy,
    OllamaDelete,
    OllamaBlobCheck,
    OllamaBlobUpload,
    OllamaSignout,
    OllamaDeleteKey,
    ListModels,
    OneModel,
    ChatCompletions,
    Completions,
    Embeddings,
    Rerank,
    Responses,
    GetResponse,
    DeleteResponse,
    ResponseInput,
    Transcriptions,
    Translations,
    Speech,
    Voices,
    AudioModels,
    VoicePacks,
    Messages,
    CountTokens,
    LlamaCompletion,
    LlamaInfill,
    LlamaTokenize,
    LlamaDetokenize,
    LlamaApplyTemplate,
    LlamaCountTokens,
    LlamaResponses,
    LlamaCountResponse,
    LlamaProps,
    LlamaSetProps,
    LlamaSlots,
    LlamaMetrics,
    LlamaLoraAdapters,
    LlamaSetLoraAdapters,
    LlamaEmbedding,
    LlamaHealth,
    LlamaDownload,
    LlamaDelete,
    LlamaLoad,
    LlamaUnload,
    LlamaModelEvents,
    LlamaResume,
    LlamaStop,
    LlamaLookup,
    LmStudioGreeting,
    LmStudioStatus,
    V0Models,
    V0Model,
    V0ChatCompletions,
    V0Completions,
    V0Embeddings,
    V1Models,
    V1Load,
    V1Unload,
    V1Download,
    V1Downloads,
    V1DownloadStatus,
    V1DownloadCancel,
    V1Chat,
    SdkSocket,
    Downloads,
    StartDownload,
    OneDownload,
    RemoveDownload,
    PauseDownload,
    ResumeDownload,
    ModelStatus,
    ModelInfo,
    ModelStart,
    ModelStop,
    ModelLogs,
    SystemStatus,
    ServerInfo,
    State,
    Events,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Method.
    pub method: Verb,
    /// Path; `{id}` takes any rest of the path, slashes included, up to a verb that another route names after it
    /// (management contract 1.2).
    pub path: &'static str,
    /// Whose API it is.
    pub dialect: Dialect,
    /// What it does.
    pub operation: Operation,
    /// Who may ask.
    pub class: Class,
    /// One line for the reference.
    pub summary: &'static str,
}

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod tests;
