use domain::LaunchOptions;

use super::*;
use crate::test_entry::entry;

fn current() -> EngineBinary {
    EngineBinary {
        path: "/opt/engine/llama-server".into(),
        build: Some(11549),
        ..EngineBinary::default()
    }
}

fn line(binary: &EngineBinary, entry: &ModelEntry, loaded: &LoadedLaunch) -> String {
    let launch = launch(binary, entry, loaded, "secret-key", &EngineSettings::default());
    let args: Vec<_> = launch.args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    assert!(!args.iter().any(|a| a.contains("secret-key")), "{args:?}");
    args.join(" ")
}

const BASE: &str = "-m /models/test model.gguf --alias acme/test-model --host 127.0.0.1 --port 0 --offline --log-jsonl \
    --no-ui --cors-origins localhost --metrics --slots --props --jinja";

fn loaded(mode: EngineMode, options: LaunchOptions) -> LoadedLaunch {
    LoadedLaunch {
        mode,
        context: 4096,
        parallel: 2,
        options,
    }
}

#[test]
fn golden_arguments() {
    let chat = entry(&[Capability::Completion, Capability::Chat]);
    let embed = entry(&[Capability::Embedding]);
    let auto = LaunchOptions::default;
    for (name, entry, launch, expected) in [
        (
            "chat",
            &chat,
            loaded(EngineMode::Completion, auto()),
            "-np 2 -c 8192 --cache-ram 512 --fit off",
        ),
        (
            "embedding",
            &embed,
            loaded(EngineMode::Embedding, auto()),
            "-np 2 -c 8192 -b 4096 -ub 4096 --fit off --embeddings",
        ),
        (
            "embedding with a larger batch",
            &embed,
            loaded(
                EngineMode::Embedding,
                LaunchOptions {
                    batch: Some(5000),
                    ..auto()
                },
            ),
            "-np 2 -c 8192 -b 5000 -ub 5000 --fit off --embeddings",
        ),
        (
            "embedding by a chat model",
            &chat,
            loaded(EngineMode::Embedding, auto()),
            "-np 2 -c 8192 -b 4096 -ub 4096 --fit off --embeddings --pooling last",
        ),
        (
            "rerank",
            &entry(&[Capability::Rerank]),
            loaded(EngineMode::Rerank, auto()),
            "-np 2 -c 8192 -b 4096 -ub 4096 --fit off --reranking",
        ),
        (
            "everything",
            &chat,
            loaded(
                EngineMode::Completion,
                LaunchOptions {
                    gpu_layers: Some(0),
                    batch: Some(512),
                    threads: Some(6),
                    main_gpu: Some(1),
                    mmap: Some(false),
                    kv_cache_type: Some("q8_0".into()),
                    flash_attention: Some("on".into()),
                    context_shift: Some(true),
                    extra_args: vec!["--no-warmup".into()],
                    ..auto()
                },
            ),
            "-np 2 -c 8192 -b 512 -ub 512 --cache-ram 512 -ctk q8_0 -ctv q8_0 --context-shift -t 6 -ngl 0 \
             --split-mode none --main-gpu 1 --flash-attn on --load-mode none --fit off --no-mmproj-offload --no-warmup",
        ),
    ] {
        assert_eq!(line(&current(), entry, &launch), format!("{BASE} {expected}"), "{name}");
    }
}

#[test]
fn projector_and_device() {
    let mut entry = entry(&[Capability::Vision]);
    entry.mmproj = Some("/models/mmproj.gguf".into());
    entry.profile = std::sync::Arc::new(domain::ModelProfile {
        adapters: vec!["/models/lora.gguf".into()],
        template: Some("{% for m in messages %}{% endfor %}".into()),
        ..domain::ModelProfile::default()
    });
    entry.key = "a,b".into();
    let gpu = EngineBinary {
        devices: vec!["CUDA0: x".into()],
        ..current()
    };
    let text = line(&gpu, &entry, &loaded(EngineMode::Completion, LaunchOptions::default()));
    assert!(
        text.contains("--mmproj /models/mmproj.gguf --chat-template {% for m in messages %}{% endfor %} --lora /models/lora.gguf --alias a_b "),
        "{text}"
    );
    assert!(!text.contains("--fit"), "{text}");
    let fixed = LaunchOptions {
        gpu_layers: Some(20),
        ..LaunchOptions::default()
    };
    let text = line(&gpu, &entry, &loaded(EngineMode::Completion, fixed));
    assert!(
        text.contains("-ngl 20") && text.contains("--fit off") && !text.contains("--no-mmproj-offload"),
        "{text}"
    );
}

#[test]
fn an_old_binary_gets_what_it_knows() {
    let flags = [
        "--offline",
        "--no-webui",
        "--jinja",
        "--no-mmap",
        "--embedding",
        "--metrics",
    ];
    let old = EngineBinary {
        flags: flags.iter().map(|f| (*f).to_owned()).collect(),
        ..current()
    };
    let options = LaunchOptions {
        mmap: Some(false),
        context_shift: Some(true),
        ..LaunchOptions::default()
    };
    assert_eq!(
        line(
            &old,
            &entry(&[Capability::Embedding]),
            &loaded(EngineMode::Embedding, options)
        ),
        "-m /models/test model.gguf --alias acme/test-model --host 127.0.0.1 --port 0 --offline --no-webui --metrics \
         --jinja -np 2 -c 8192 -b 4096 -ub 4096 --no-mmap --embedding"
    );
}

#[test]
fn sizes_beyond_32_bits_are_written_out() {
    let huge = LoadedLaunch {
        context: u32::MAX,
        parallel: 4,
        ..LoadedLaunch::default()
    };
    let text = line(&current(), &entry(&[]), &huge);
    assert!(text.contains("-c 17179869180 "), "{text}");
}

#[test]
fn prompt_cache_follows_the_kv_cache() {
    let mut entry = entry(&[]);
    let loaded = loaded(EngineMode::Completion, LaunchOptions::default());
    for (kv, expected) in [
        (None, 512),
        (Some(1), 128),
        (Some(100 << 10), 800),
        (Some(1 << 30), 2048),
        (Some(u64::MAX), 2048),
    ] {
        entry.facts.kv_bytes_per_token = kv;
        assert_eq!(prompt_cache_mib(&entry, &loaded), expected, "{kv:?}");
    }
}

#[test]
fn environment_is_clean_and_ours_wins() {
    let mut settings = EngineSettings::default();
    settings.env.insert("GGML_X".into(), "settings".into());
    settings.env.insert("LLAMA_API_KEY".into(), "forged".into());
    let options = LaunchOptions {
        env: vec![
            ("GGML_X".into(), "model".into()),
            ("LLAMA_SERVER_ROUTER_PORT".into(), "forged".into()),
        ],
        ..LaunchOptions::default()
    };
    let launch = launch(
        &current(),
        &entry(&[]),
        &loaded(EngineMode::Completion, options),
        "secret-key",
        &settings,
    );
    let value = |name: &str| {
        let found: Vec<_> = launch
            .env
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.to_string_lossy())
            .collect();
        assert!(found.len() <= 1, "{name} twice");
        found.first().map(ToString::to_string)
    };
    assert_eq!(value("GGML_X").as_deref(), Some("model"));
    assert_eq!(value("LLAMA_API_KEY").as_deref(), Some("secret-key"));
    assert_eq!(value("LLAMA_SERVER_ROUTER_PORT").as_deref(), Some("1"));
    assert_eq!(value("LLAMA_MEDIA_MARKER").as_deref(), Some(domain::chat::MEDIA_MARKER));
    let allowed = |name: &str| {
        let ours = [
            "PATH",
            "GGML_X",
            "LLAMA_API_KEY",
            "LLAMA_SERVER_ROUTER_PORT",
            "LLAMA_MEDIA_MARKER",
        ];
        INHERITED.contains(&name) || ours.contains(&name)
    };
    // The test process has CARGO_… and much more.
    assert!(std::env::vars_os().count() > launch.env.len());
    for (name, _) in &launch.env {
        assert!(allowed(&name.to_string_lossy()), "{}", name.display());
    }
    assert!(!format!("{launch:?}").contains("secret-key"));
    assert_eq!(
        launch.stop.stdin_message.as_deref(),
        Some(&b"cmd_router_to_child:exit\n"[..])
    );
    assert_eq!(
        launch.stop_grace(Duration::from_secs(3)).stop.grace,
        Duration::from_secs(3)
    );
}

#[test]
fn libraries_beside_the_program_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("llama-server");
    let path = |env: Vec<(OsString, OsString)>| env.into_iter().find(|(n, _)| n == "LD_LIBRARY_PATH").map(|(_, v)| v);
    assert_eq!(path(inherited_environment(&program)), None);
    std::fs::write(folder.path().join("libllama.so"), "").unwrap();
    assert_eq!(path(inherited_environment(&program)), Some(folder.path().into()));
}

#[test]
fn experts_and_the_place_of_the_cache() {
    let options = LaunchOptions {
        experts: Some(99),
        kv_offload: Some(false),
        ..LaunchOptions::default()
    };
    let mut model = entry(&[Capability::Chat]);
    let launch = loaded(EngineMode::Completion, options);
    let text = line(&current(), &model, &launch);
    assert!(
        text.contains("--no-kv-offload") && !text.contains("--override-kv"),
        "{text}"
    );
    model.facts.architecture = "qwen3moe".into();
    model.facts.expert_count = Some(8);
    let text = line(&current(), &model, &launch);
    assert!(
        text.contains("--override-kv qwen3moe.expert_used_count=int:8"),
        "{text}"
    );
}
