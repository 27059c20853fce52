use super::Class::{Inference, Management, Public, UiShell};
use super::Dialect::{LlamaRunner, LmStudio, Ollama, OpenAi};
use super::Operation as Op;
use super::Verb::{Get, Post};
use super::{Class, Dialect, Operation, Route, Verb};

const fn route(
    method: Verb,
    path: &'static str,
    dialect: Dialect,
    operation: Operation,
    class: Class,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        dialect,
        operation,
        class,
        summary,
    }
}

/// All routes; every listener has them all, its flavour only breaks ties (management contract 6).
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route(Get, "/", LlamaRunner, Op::Root, UiShell, "Says what runs here; browsers are sent to the window"),
    route(Get, "/ui", LlamaRunner, Op::Ui, UiShell, "The window's page"),
    route(Get, "/ui/", LlamaRunner, Op::Ui, UiShell, "The window's page"),
    route(Get, "/ui/{file}", LlamaRunner, Op::Ui, UiShell, "Files of the window"),
    route(Get, "/health", LlamaRunner, Op::Health, Public, "Is the server alive?"),
    route(Get, "/openapi.json", LlamaRunner, Op::OpenApi, Public, "This list as an OpenAPI document"),
    // Ollama
    route(Get, "/api/version", Ollama, Op::OllamaVersion, Inference, "Version"),
    route(Get, "/api/status", Ollama, Op::OllamaStatus, Inference, "State of cloud features: off"),
    route(Get, "/api/tags", Ollama, Op::OllamaTags, Inference, "Installed models"),
    route(Get, "/api/ps", Ollama, Op::OllamaPs, Inference, "Loaded models"),
    route(Post, "/api/show", Ollama, Op::OllamaShow, Inference, "Details of a model"),
    route(Post, "/api/generate", Ollama, Op::OllamaGenerate, Inference, "Complete a prompt; load or unload a model"),
    route(Post, "/api/chat", Ollama, Op::OllamaChat, Inference, "Chat; load or unload a model"),
    route(Post, "/api/embed", Ollama, Op::OllamaEmbed, Inference, "Embedding vectors"),
    route(Post, "/api/embeddings", Ollama, Op::OllamaEmbeddings, Inference, "One embedding vector (old form)"),
    route(Post, "/api/me", Ollama, Op::OllamaMe, Inference, "Cloud account: none"),
    route(Post, "/api/experimental/web_search", Ollama, Op::OllamaWebSearch, Inference, "Cloud search: not available"),
    route(Post, "/api/experimental/web_fetch", Ollama, Op::OllamaWebFetch, Inference, "Cloud fetch: not available"),
    route(Get, "/api/experimental/model-recommendations", Ollama, Op::OllamaRecommendations, Inference, "Recommended models: none"),
    // OpenAI and llama.cpp
    route(Get, "/v1/models", OpenAi, Op::ListModels, Inference, "List models"),
    route(Get, "/v1/models/{id}", OpenAi, Op::OneModel, Inference, "One model"),
    route(Get, "/models", OpenAi, Op::ListModels, Inference, "List models, with llama.cpp's own list"),
    route(Post, "/v1/chat/completions", OpenAi, Op::ChatCompletions, Inference, "Chat"),
    route(Post, "/chat/completions", OpenAi, Op::ChatCompletions, Inference, "Chat"),
    route(Post, "/v1/completions", OpenAi, Op::Completions, Inference, "Complete a prompt"),
    route(Post, "/v1/embeddings", OpenAi, Op::Embeddings, Inference, "Embedding vectors"),
    route(Post, "/v1/rerank", OpenAi, Op::Rerank, Inference, "Score documents for a query"),
    route(Post, "/v1/reranking", OpenAi, Op::Rerank, Inference, "Score documents for a query"),
    route(Post, "/rerank", OpenAi, Op::Rerank, Inference, "Score documents for a query"),
    route(Post, "/reranking", OpenAi, Op::Rerank, Inference, "Score documents for a query"),
    // LM Studio
    route(Get, "/api/v0/models", LmStudio, Op::V0Models, Inference, "List models"),
    route(Get, "/api/v0/models/{id}", LmStudio, Op::V0Model, Inference, "One model"),
    route(Post, "/api/v0/chat/completions", LmStudio, Op::V0ChatCompletions, Inference, "Chat, with statistics"),
    route(Post, "/api/v0/completions", LmStudio, Op::V0Completions, Inference, "Complete a prompt, with statistics"),
    route(Post, "/api/v0/embeddings", LmStudio, Op::V0Embeddings, Inference, "Embedding vectors"),
    // LlamaRunner
    route(Get, "/v1/models/{id}/status", LlamaRunner, Op::ModelStatus, Inference, "State of a model"),
    route(Get, "/v1/models/{id}/info", LlamaRunner, Op::ModelInfo, Inference, "Facts about a model"),
    route(Post, "/v1/models/{id}/start", LlamaRunner, Op::ModelStart, Management, "Load a model"),
    route(Post, "/v1/models/{id}/stop", LlamaRunner, Op::ModelStop, Management, "Unload a model"),
    route(Get, "/v1/models/{id}/logs", LlamaRunner, Op::ModelLogs, Management, "Log of a model's engine"),
    route(Get, "/v1/system/status", LlamaRunner, Op::SystemStatus, Management, "Models, ports, memory"),
    route(Get, "/v1/server/info", LlamaRunner, Op::ServerInfo, Management, "Version and features"),
    route(Get, "/v1/state", LlamaRunner, Op::State, Management, "Everything the window shows"),
    route(Get, "/v1/events", LlamaRunner, Op::Events, Management, "Changes as they happen (server-sent events)"),
];
