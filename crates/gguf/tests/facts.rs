//! Facts and capabilities, of real files and by table.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Cursor;
use std::path::Path;

use domain::Capability;
use gguf::craft::Craft;
use gguf::{Detail, Header, Items, Purpose, Value, capabilities, facts, projector, purpose};

fn read(file: &[u8], detail: Detail) -> Header {
    Header::read(&mut Cursor::new(file), file.len() as u64, detail).unwrap()
}

fn fixture(name: &str, detail: Detail) -> Header {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/models");
    let mut file = std::fs::File::open(models.join(name)).unwrap();
    let len = file.metadata().unwrap().len();
    Header::read(&mut file, len, detail).unwrap()
}

fn words(header: &Header) -> Vec<&'static str> {
    capabilities(header, None).iter().map(Capability::as_str).collect()
}

#[test]
fn real_files() {
    let chat = fixture("tiny-chat.gguf", Detail::Tensors);
    assert_eq!(words(&chat), ["completion", "chat", "tools", "insert", "thinking"]);
    let known = facts(&chat);
    assert_eq!(known.architecture, "llama");
    assert_eq!(known.quantization, "F16");
    assert_eq!(known.context_length, Some(4096));
    assert_eq!(known.vocab_size, Some(768));
    // 4 layers x 2 heads x (32 + 32) x 2 bytes.
    assert_eq!(known.kv_bytes_per_token, Some(1024));
    assert!((850_000..950_000).contains(&known.parameters), "{}", known.parameters);
    assert!(
        (15.9..17.0).contains(&known.bits_per_weight),
        "{}",
        known.bits_per_weight
    );
    assert_eq!(chat.tensors.len(), 38);
    assert!(
        chat.tensors
            .iter()
            .any(|t| t.name == "token_embd.weight" && t.shape == [128, 768] && t.kind_name() == "F16")
    );

    let embed = fixture("tiny-embed.gguf", Detail::Facts);
    assert_eq!(words(&embed), ["embedding"]);
    assert_eq!(facts(&embed).kv_bytes_per_token, None);
    assert!(embed.tensors.is_empty());
    assert_eq!(embed.tensor_count, 21);
    assert_eq!(words(&fixture("tiny-rerank.gguf", Detail::Facts)), ["rerank"]);
}

#[test]
fn lists_are_kept_only_when_asked() {
    let list = |header: &Header| match header.metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(list)) => list.clone(),
        other => panic!("{other:?}"),
    };
    for detail in [Detail::Facts, Detail::Tensors] {
        let tokens = list(&fixture("tiny-embed.gguf", detail));
        assert_eq!((tokens.len, tokens.items), (1916, None));
    }
    let Some(Items::Text(tokens)) = list(&fixture("tiny-embed.gguf", Detail::Verbose)).items else {
        panic!()
    };
    assert_eq!(tokens.len(), 1916);
    assert!(tokens.iter().any(|token| token == "[CLS]"));
}

#[test]
fn capabilities_by_table() {
    let base = || {
        Craft::new()
            .text("general.architecture", "x")
            .uint("x.block_count", 1)
            .tensor("w", &[32], 0)
    };
    let chat = |template: &str| base().text("tokenizer.chat_template", template);
    let cases: Vec<(&str, Craft, &[&str])> = vec![
        ("bare", base(), &["completion"]),
        ("empty template", chat("  "), &["completion"]),
        ("template", chat("{{ messages }}"), &["completion", "chat"]),
        ("tools", chat("{% if tools %}"), &["completion", "chat", "tools"]),
        ("tool_call", chat("<tool_call>"), &["completion", "chat", "tools"]),
        ("think", chat("<think> </think>"), &["completion", "chat", "thinking"]),
        ("half a think", chat("<think>"), &["completion", "chat"]),
        (
            "split",
            chat("{{ content.split('</think>')[-1] }}"),
            &["completion", "chat", "thinking"],
        ),
        (
            "harmony",
            chat("<|channel|>analysis"),
            &["completion", "chat", "thinking"],
        ),
        ("mean pooling", base().uint("x.pooling_type", 1), &["embedding"]),
        (
            "mean pooling with template",
            chat("{{ tools }}").uint("x.pooling_type", 1),
            &["embedding"],
        ),
        ("no pooling", base().uint("x.pooling_type", 0), &["embedding"]),
        (
            "no pooling, chat",
            chat("x").uint("x.pooling_type", 0),
            &["completion", "chat"],
        ),
        ("rank", base().uint("x.pooling_type", 4), &["rerank"]),
        (
            "rank template",
            base().text("tokenizer.chat_template.rerank", "{query}"),
            &["rerank"],
        ),
        (
            "encoder",
            Craft::new().text("general.architecture", "bert").tensor("w", &[32], 0),
            &["embedding"],
        ),
        (
            "fim keys",
            base()
                .uint("tokenizer.ggml.fim_pre_token_id", 1)
                .uint("tokenizer.ggml.fim_suf_token_id", 2),
            &["completion", "insert"],
        ),
        (
            "half of fim",
            base().uint("tokenizer.ggml.fim_pre_token_id", 1),
            &["completion"],
        ),
        (
            "fim tokens",
            base().texts("tokenizer.ggml.tokens", &["a", "<|fim_prefix|>", "<|fim_suffix|>"]),
            &["completion", "insert"],
        ),
        (
            "vision inside",
            base().uint("x.vision.block_count", 3),
            &["completion", "vision"],
        ),
    ];
    for (name, craft, wanted) in cases {
        assert_eq!(words(&read(&craft.build(), Detail::Facts)), wanted, "{name}");
    }
}

#[test]
fn purposes_and_projectors() {
    let model = read(&Craft::model("m").build(), Detail::Facts);
    assert_eq!((purpose(&model), projector(&model)), (Purpose::Model, None));
    let eyes = read(&Craft::projector(64).build(), Detail::Facts);
    assert_eq!(purpose(&eyes), Purpose::Projector);
    let eyes = projector(&eyes).unwrap();
    assert_eq!((eyes.vision, eyes.audio, eyes.width), (true, false, Some(64)));
    assert!(capabilities(&model, Some(eyes)).has(Capability::Vision));
    let ears = Craft::new()
        .text("general.architecture", "clip")
        .flag("clip.has_audio_encoder", true)
        .build();
    let ears = projector(&read(&ears, Detail::Facts)).unwrap();
    assert_eq!((ears.vision, ears.audio), (false, true));

    let kind = |craft: Craft| purpose(&read(&craft.build(), Detail::Facts));
    let typed = |kind: &str| Craft::model("m").text("general.type", kind);
    assert!(matches!(kind(typed("adapter")), Purpose::Other(_)));
    assert_eq!(kind(typed("model")), Purpose::Model);
    assert!(matches!(
        kind(Craft::new().text("general.architecture", "flux").tensor("w", &[32], 0)),
        Purpose::Other(_)
    ));
    assert!(matches!(kind(Craft::new()), Purpose::Other(_)));
    assert_eq!(
        kind(Craft::new().uint("split.no", 1).uint("split.count", 2)),
        Purpose::Part
    );
    assert_eq!(
        kind(Craft::model("m").uint("split.no", 0).uint("split.count", 2)),
        Purpose::Model
    );
}

#[test]
fn quantization_and_cache_size() {
    let quant = |craft: Craft| read(&craft.build(), Detail::Facts).quantization();
    let with = |kind| Craft::new().tensor("norm", &[256], 0).tensor("w", &[256, 100], kind);
    assert_eq!(quant(with(12).uint("general.file_type", 17)), "Q5_K_M");
    assert_eq!(quant(with(12)), "Q4_K_M");
    assert_eq!(quant(with(8).uint("general.file_type", 9999)), "Q8_0");
    assert_eq!(quant(Craft::new()), "unknown");
    let header = read(&with(12).build(), Detail::Facts);
    assert!(
        (4.5..5.0).contains(&header.bits_per_weight()),
        "{}",
        header.bits_per_weight()
    );

    let base = || {
        Craft::new()
            .text("general.architecture", "x")
            .uint("x.block_count", 3)
            .uint("x.embedding_length", 256)
    };
    let cache = |craft: Craft| facts(&read(&craft.build(), Detail::Facts)).kv_bytes_per_token;
    assert_eq!(cache(base()), None);
    assert_eq!(cache(base().uint("x.attention.head_count", 4)), Some(3 * 4 * 128 * 2));
    let grouped = base()
        .uint("x.attention.head_count", 4)
        .ints("x.attention.head_count_kv", &[2, 0, 1]);
    assert_eq!(cache(grouped), Some(3 * 128 * 2));
    let wide = base()
        .uint("x.attention.head_count", 4)
        .uint("x.attention.key_length", 100)
        .uint("x.attention.value_length", 28);
    assert_eq!(cache(wide), Some(3 * 4 * 128 * 2));
    assert_eq!(cache(base().uint("x.attention.head_count", 0)), None);
    let huge = base()
        .uint("x.attention.head_count", 4)
        .uint("x.attention.key_length", u32::MAX);
    assert!(cache(huge).is_some());
}
