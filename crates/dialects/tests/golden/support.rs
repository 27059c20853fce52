use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dialects::{Clock, ModelView, Transcoder};
use domain::{
    Capability, EngineKind, FailureReport, InstanceId, InstanceView, KeepAlive, LaunchOptions, LoadedLaunch,
    ModelEntry, ModelFacts, ModelKey, ModelSource, ModelState,
};

/// 2026-11-20T12:00:00Z.
pub(crate) const START_NS: i64 = 1_795_176_000_000_000_000;
/// The same in milliseconds.
pub(crate) const START_MS: i64 = START_NS / 1_000_000;

/// Starts at [`START_NS`] and goes on by a millisecond with every look.
pub(crate) fn clock() -> Clock {
    let now = AtomicI64::new(START_NS);
    Arc::new(move || now.fetch_add(1_000_000, Ordering::Relaxed))
}

pub(crate) fn folder(dialect: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(dialect)
}

pub(crate) fn cases(dialect: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder(dialect))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// Compares with the file, or writes it when `UPDATE_GOLDEN` is set.
pub(crate) fn compare(file: &Path, got: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, got).unwrap();
        return;
    }
    let expected = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(
        String::from_utf8_lossy(got),
        String::from_utf8_lossy(&expected),
        "{} differs; UPDATE_GOLDEN=1 accepts the change",
        file.display()
    );
}

/// A JSON body, made readable.
pub(crate) fn pretty(body: &[u8]) -> Vec<u8> {
    let value: serde_json::Value =
        serde_json::from_slice(body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(body)));
    let mut text = serde_json::to_vec_pretty(&value).unwrap();
    text.push(b'\n');
    text
}

/// Runs a stream through a new transcoder in pieces of this many bytes; `end` decides how it stops.
pub(crate) fn replay(mut make: impl FnMut() -> Box<dyn Transcoder>, stream: &[u8], piece: usize) -> Vec<u8> {
    let mut transcoder = make();
    let mut out = Vec::new();
    for chunk in stream.chunks(piece) {
        transcoder.push(chunk, &mut out);
    }
    transcoder.finish(&mut out);
    transcoder.finish(&mut out);
    out
}

/// The whole, in odd pieces and byte by byte: all equal.
pub(crate) fn replay_all(mut make: impl FnMut() -> Box<dyn Transcoder>, stream: &[u8]) -> Vec<u8> {
    let whole = replay(&mut make, stream, stream.len().max(1));
    for piece in [1, 7, 100, 301] {
        let pieces = replay(&mut make, stream, piece);
        assert_eq!(
            String::from_utf8_lossy(&whole),
            String::from_utf8_lossy(&pieces),
            "pieces of {piece}"
        );
    }
    whole
}

pub(crate) fn entry(key: &str, capabilities: &[Capability]) -> ModelEntry {
    ModelEntry {
        key: ModelKey::from(key),
        slug: key.to_owned(),
        engine: EngineKind::LlamaServer,
        source: ModelSource::Folder,
        path: format!("/home/someone/models/{key}.gguf").into(),
        parts: Vec::new(),
        mmproj: None,
        size: 1_812_480,
        modified: 1_795_000_000,
        publisher: "acme".into(),
        indexed_path: format!("acme/{key}-GGUF/{key}.gguf"),
        display_name: key.to_owned(),
        description: None,
        digest: "ab".repeat(32),
        aliases: vec!["alias".into()],
        capabilities: capabilities.iter().copied().collect(),
        facts: ModelFacts {
            architecture: "llama".into(),
            name: Some(key.to_owned()),
            basename: Some("tiny".into()),
            parameters: 888_960,
            quantization: "F16".into(),
            bits_per_weight: 16.0,
            context_length: Some(4096),
            embedding_length: Some(128),
            block_count: Some(4),
            kv_bytes_per_token: Some(1024),
            expert_count: None,
            vocab_size: Some(768),
            has_chat_template: true,
        },
        launch: LaunchOptions::default(),
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    }
}

/// The models the cases speak of.
pub(crate) fn models() -> Vec<Arc<ModelEntry>> {
    use Capability as C;
    let mut chat = entry("tiny-chat", &[C::Completion, C::Chat, C::Tools, C::Thinking, C::Insert]);
    chat.description = Some("Knows a few hundred sentences.".into());
    let vision = entry("vision", &[C::Completion, C::Chat, C::Vision]);
    let mut plain = entry("plain", &[C::Completion]);
    plain.facts.has_chat_template = false;
    plain.modified += 60;
    let embed = entry("embed", &[C::Embedding]);
    let mut hidden = entry("hidden", &[C::Completion, C::Chat]);
    hidden.unlisted = true;
    let rerank = entry("acme/rerank", &[C::Rerank]);
    [chat, vision, plain, embed, hidden, rerank]
        .into_iter()
        .map(Arc::new)
        .collect()
}

/// Finds a model as the registry would.
pub(crate) fn find(name: &str) -> Option<Arc<ModelEntry>> {
    let bare = name.strip_suffix(":latest").unwrap_or(name);
    models()
        .into_iter()
        .find(|entry| entry.key.as_str().eq_ignore_ascii_case(bare))
}

fn instance(entry: &ModelEntry, state: ModelState, keep_alive: KeepAlive) -> InstanceView {
    InstanceView {
        id: InstanceId(7),
        model: entry.key.clone(),
        engine: EngineKind::LlamaServer,
        state,
        port: Some(40123),
        pid: Some(4711),
        ready_at_ms: Some(START_MS - 65_500),
        last_used_ms: Some(START_MS - 5_000),
        expires_at_ms: None,
        keep_alive,
        jit: true,
        active: 1,
        queued: 0,
        launch: LoadedLaunch {
            context: 2048,
            parallel: 2,
            ..LoadedLaunch::default()
        },
        memory_bytes: Some(26_214_400),
        vram_bytes: None,
        load_ms: Some(41),
    }
}

/// Every state a list can show.
pub(crate) fn views() -> Vec<ModelView> {
    let mut views: Vec<ModelView> = models().into_iter().map(ModelView::unloaded).collect();
    let minutes = KeepAlive::For(std::time::Duration::from_mins(5));
    let mut set = |key: &str, state: ModelState, keep_alive: KeepAlive, expires: Option<i64>| {
        let view = views.iter_mut().find(|view| view.entry.key.as_str() == key).unwrap();
        let mut instance = instance(&view.entry, state.clone(), keep_alive);
        instance.expires_at_ms = expires;
        view.state = state;
        view.instance = Some(instance);
    };
    set("tiny-chat", ModelState::Ready, minutes, None);
    set("embed", ModelState::Ready, KeepAlive::Forever, None);
    set("vision", ModelState::Loading { progress: 0.5 }, minutes, None);
    set("acme/rerank", ModelState::Draining, minutes, Some(START_MS + 1000));
    let failed = FailureReport {
        reason: "The file is damaged.".into(),
        code: None,
        log: vec!["E load failed".into()],
        exit_code: Some(1),
        signal: None,
        retryable: false,
    };
    views
        .iter_mut()
        .find(|view| view.entry.key.as_str() == "plain")
        .unwrap()
        .state = ModelState::Failed(failed);
    views
}
