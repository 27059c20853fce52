//! Resolves every "auto" of a launch. "Context per request" is the only size a user sets; slots multiply it
//! (engine guide 7: a context divided by slots, or shared and exhausted, is the field's classic complaint).

use domain::{Capability, EngineKind, LaunchOptions, LoadedLaunch, ModelEntry};

/// Memory that a new instance may plan with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryBudget {
    /// Available main memory, in bytes.
    pub ram_available: u64,
    /// Free GPU memory, in bytes; 0 without a usable GPU.
    pub vram_free: u64,
}

/// Context per request when nobody asks for one: enough for work, small enough for laptops.
const AUTO_CONTEXT: u32 = 8192;
/// The smaller one, where the KV cache of the larger would not fit.
const SMALL_CONTEXT: u32 = 4096;
/// Smallest context (Ollama contract 5).
const MIN_CONTEXT: u32 = 4;
/// Smallest context of a model that takes images: one image is many tokens (Ollama contract 5).
const MIN_VISION_CONTEXT: u32 = 2048;
/// Slot counts that "auto" chooses from, best first.
const AUTO_PARALLEL: [u32; 3] = [4, 2, 1];
/// More slots than this only cost memory.
const MAX_PARALLEL: u32 = 256;
/// Buffers of an engine beside weights and cache, in bytes.
const BUFFERS: u64 = 256 << 20;
/// The same of a speech process, its interpreter included (audio contract 7.2).
const SPEECH_BUFFERS: u64 = 200 << 20;
/// The KV cache may always have this much.
const KV_FLOOR: u64 = 512 << 20;

/// Resolves every "auto" of `options` for this model and this memory.
pub fn plan(entry: &ModelEntry, options: &LaunchOptions, budget: &MemoryBudget) -> LoadedLaunch {
    let mode = options.mode.unwrap_or_else(|| entry.natural_mode());
    if let Some(parallel) = fixed_parallel(entry) {
        return LoadedLaunch {
            mode,
            context: entry.facts.context_length.unwrap_or(0),
            // The defaults are for engines that share one model between slots.
            parallel: entry.launch.parallel.unwrap_or(parallel).clamp(1, MAX_PARALLEL),
            options: options.clone(),
        };
    }
    let room = kv_room(options, budget);
    let per_token = kv_bytes_per_token(entry, options);
    let fits = |context: u32, parallel: u32| {
        per_token.is_none_or(|bytes| {
            bytes
                .saturating_mul(u64::from(context))
                .saturating_mul(u64::from(parallel))
                <= room
        })
    };

    let trained = entry.facts.context_length.filter(|trained| *trained > 0);
    let cap = |context: u32| context.min(trained.unwrap_or(u32::MAX)).max(MIN_CONTEXT);
    let mut context = match options.context {
        Some(context) => cap(context),
        // Without facts about the model the small one is the safe one.
        None if trained.is_none() || !fits(cap(AUTO_CONTEXT), 1) => cap(SMALL_CONTEXT),
        None => cap(AUTO_CONTEXT),
    };
    if entry.mmproj.is_some() || entry.can(Capability::Vision) {
        context = cap(context.max(MIN_VISION_CONTEXT));
    }

    let parallel = match options.parallel {
        Some(parallel) => parallel.clamp(1, MAX_PARALLEL),
        None if per_token.is_none() => unknown_parallel(entry, budget),
        None => AUTO_PARALLEL
            .into_iter()
            .find(|parallel| fits(context, *parallel))
            .unwrap_or(1),
    };
    LoadedLaunch {
        mode,
        context,
        parallel,
        options: options.clone(),
    }
}

/// Requests at once of engines that are not told how many: one recording at a time (a second one gains nothing on a
/// processor), one sentence spoken while the next waits, and as many as a small server of somebody's takes.
fn fixed_parallel(entry: &ModelEntry) -> Option<u32> {
    match entry.engine {
        EngineKind::LlamaServer => None,
        EngineKind::FasterWhisper => Some(1),
        EngineKind::Speech => Some(2),
        EngineKind::Custom => Some(4),
    }
}

/// What of a wish the model's engine can follow. The rest must not count: an engine would be started again and again for a
/// context that it knows nothing of.
pub fn heeded(entry: &ModelEntry, wish: LaunchOptions) -> LaunchOptions {
    match entry.engine {
        EngineKind::LlamaServer => wish,
        EngineKind::FasterWhisper | EngineKind::Speech | EngineKind::Custom => LaunchOptions {
            threads: wish.threads,
            extra_args: wish.extra_args,
            env: wish.env,
            ..LaunchOptions::default()
        },
    }
}

/// Memory that a launch will take, in bytes: the model's files, the cache of every slot's context, and buffers. A model whose
/// header says nothing of its cache is taken to need none.
pub fn memory_needed(entry: &ModelEntry, launch: &LoadedLaunch) -> u64 {
    if entry.engine != EngineKind::LlamaServer {
        return entry.size.saturating_add(SPEECH_BUFFERS);
    }
    let tokens = u64::from(launch.context) * u64::from(launch.parallel);
    let cache = kv_bytes_per_token(entry, &launch.options).map_or(0, |bytes| bytes.saturating_mul(tokens));
    entry.size.saturating_add(cache).saturating_add(BUFFERS)
}

/// The next try after a start that ran out of memory (promise R12): fewer GPU layers first, then less context.
/// `attempt` counts from 1; `None`: give up and say so.
pub fn degrade(entry: &ModelEntry, failed: &LoadedLaunch, has_gpu: bool, attempt: u32) -> Option<LoadedLaunch> {
    let mut next = failed.clone();
    match attempt {
        1 if has_gpu && failed.options.gpu_layers != Some(0) => {
            let layers = failed.options.gpu_layers.or(entry.facts.block_count).unwrap_or(0);
            next.options.gpu_layers = Some(layers / 2);
            Some(next)
        }
        1 if failed.parallel > 1 => {
            next.parallel = 1;
            Some(next)
        }
        1 | 2 if failed.context > MIN_VISION_CONTEXT => {
            next.parallel = 1;
            next.context = (failed.context / 2).max(MIN_VISION_CONTEXT);
            Some(next)
        }
        _ => None,
    }
}

fn kv_room(options: &LaunchOptions, budget: &MemoryBudget) -> u64 {
    let on_gpu = budget.vram_free > 0 && options.gpu_layers != Some(0);
    let available = if on_gpu { budget.vram_free } else { budget.ram_available };
    (available / 4).max(KV_FLOOR)
}

/// The header's number is for F16; quantized caches keep blocks of 32 values with a scale.
pub(crate) fn kv_bytes_per_token(entry: &ModelEntry, options: &LaunchOptions) -> Option<u64> {
    let f16 = entry.facts.kv_bytes_per_token?;
    let (bytes, of) = match options.kv_cache_type.as_deref() {
        Some("f32") => (128, 64),
        Some("q8_0") => (34, 64),
        Some("q5_1") => (24, 64),
        Some("q5_0") => (22, 64),
        Some("q4_1") => (20, 64),
        Some("q4_0" | "iq4_nl") => (18, 64),
        _ => (64, 64),
    };
    Some(f16.saturating_mul(bytes) / of)
}

/// Without header facts the file size is the only hint: a file that nearly fills the memory gets one slot.
fn unknown_parallel(entry: &ModelEntry, budget: &MemoryBudget) -> u32 {
    if entry.size <= budget.ram_available.max(budget.vram_free) / 4 {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use domain::{EngineMode, ModelFacts};

    use super::*;
    use crate::test_entry::entry;

    const GIB: u64 = 1 << 30;

    fn ram(gib: u64) -> MemoryBudget {
        MemoryBudget {
            ram_available: gib * GIB,
            vram_free: 0,
        }
    }

    fn with_facts(context_length: Option<u32>, kv: Option<u64>) -> ModelEntry {
        let facts = ModelFacts {
            context_length,
            kv_bytes_per_token: kv,
            ..ModelFacts::default()
        };
        ModelEntry {
            facts,
            ..entry(&[Capability::Completion])
        }
    }

    fn context(context: u32) -> LaunchOptions {
        LaunchOptions {
            context: Some(context),
            ..LaunchOptions::default()
        }
    }

    #[test]
    fn context_and_parallel() {
        let auto = LaunchOptions::default();
        let kib = |n: u64| Some(n << 10);
        // (trained, KV bytes per token, options, budget) -> (context, parallel)
        for (name, trained, kv, options, budget, expected) in [
            ("tiny model", Some(4096), kib(1), auto.clone(), ram(16), (4096, 4)),
            (
                "8B on 16 GiB",
                Some(131_072),
                kib(128),
                auto.clone(),
                ram(16),
                (8192, 4),
            ),
            ("8B on 8 GiB", Some(131_072), kib(128), auto.clone(), ram(8), (8192, 2)),
            ("8B on 4 GiB", Some(131_072), kib(128), auto.clone(), ram(4), (8192, 1)),
            (
                "8B on nothing",
                Some(131_072),
                kib(128),
                auto.clone(),
                ram(0),
                (4096, 1),
            ),
            (
                "8B in 80 GiB VRAM",
                Some(131_072),
                kib(128),
                auto.clone(),
                MemoryBudget {
                    ram_available: GIB,
                    vram_free: 80 * GIB,
                },
                (8192, 4),
            ),
            (
                "a bare floor",
                Some(131_072),
                kib(1000),
                auto.clone(),
                ram(1),
                (4096, 1),
            ),
            ("unknown facts", None, None, auto.clone(), ram(16), (4096, 2)),
            ("unknown facts, no memory", None, None, auto.clone(), ram(0), (4096, 1)),
            ("asked", Some(131_072), kib(128), context(32_768), ram(16), (32_768, 1)),
            (
                "asked beyond trained",
                Some(4096),
                kib(1),
                context(1 << 20),
                ram(16),
                (4096, 4),
            ),
            ("asked absurdly little", Some(4096), kib(1), context(1), ram(16), (4, 4)),
            ("asked zero", Some(4096), kib(1), context(0), ram(16), (4, 4)),
            (
                "trained zero means unknown",
                Some(0),
                kib(1),
                context(100),
                ram(16),
                (100, 4),
            ),
            (
                "overflow",
                Some(u32::MAX),
                Some(u64::MAX),
                context(u32::MAX),
                ram(16),
                (u32::MAX, 1),
            ),
        ] {
            let plan = plan(&with_facts(trained, kv), &options, &budget);
            assert_eq!((plan.context, plan.parallel), expected, "{name}");
            assert_eq!(plan.options, options, "{name}");
        }
    }

    #[test]
    fn wishes_are_kept_and_bounded() {
        let entry = with_facts(Some(8192), Some(1 << 20));
        let slots = |n| LaunchOptions {
            parallel: Some(n),
            ..LaunchOptions::default()
        };
        for (asked, expected) in [(0, 1), (1, 1), (7, 7), (100_000, MAX_PARALLEL)] {
            assert_eq!(plan(&entry, &slots(asked), &ram(1)).parallel, expected, "{asked}");
        }
        // A smaller cache type leaves room for more slots.
        let kv = |name: &str| LaunchOptions {
            kv_cache_type: Some(name.into()),
            ..context(1024)
        };
        assert_eq!(plan(&entry, &kv("f32"), &ram(0)).parallel, 1);
        assert_eq!(plan(&entry, &kv("q4_0"), &ram(0)).parallel, 1);
        assert_eq!(plan(&entry, &kv("f16"), &ram(8)).parallel, 2);
        assert_eq!(plan(&entry, &kv("q8_0"), &ram(8)).parallel, 2);
        assert_eq!(plan(&entry, &kv("q4_0"), &ram(8)).parallel, 4);
    }

    #[test]
    fn memory_is_reckoned_for_what_will_be_started() {
        let entry = with_facts(Some(131_072), Some(128 << 10));
        let kv_bytes = |options: &LaunchOptions, budget: &MemoryBudget| {
            memory_needed(&entry, &plan(&entry, options, budget)) - entry.size - BUFFERS
        };
        let auto = LaunchOptions::default();
        assert_eq!(kv_bytes(&auto, &ram(16)), 4 * GIB);
        assert_eq!(kv_bytes(&auto, &ram(0)), GIB / 2);
        let small_cache = LaunchOptions {
            kv_cache_type: Some("q8_0".into()),
            parallel: Some(4),
            ..context(8192)
        };
        assert_eq!(kv_bytes(&small_cache, &ram(16)), 4 * GIB * 34 / 64);
        let endless = LoadedLaunch {
            context: u32::MAX,
            parallel: u32::MAX,
            ..LoadedLaunch::default()
        };
        assert_eq!(memory_needed(&with_facts(None, Some(u64::MAX)), &endless), u64::MAX);
    }

    #[test]
    fn engines_without_a_context_are_planned_by_kind() {
        let kinds = [
            (EngineKind::FasterWhisper, EngineMode::Transcription, 1),
            (EngineKind::Speech, EngineMode::Speech, 2),
            (EngineKind::Custom, EngineMode::Completion, 4),
        ];
        for (engine, mode, parallel) in kinds {
            let able = match mode {
                EngineMode::Transcription => Capability::Transcription,
                EngineMode::Speech => Capability::Speech,
                _ => Capability::Chat,
            };
            let mut entry = ModelEntry {
                engine,
                ..entry(&[able])
            };
            let defaults = LaunchOptions {
                parallel: Some(16),
                ..context(4096)
            };
            let launch = plan(&entry, &defaults, &ram(8));
            assert_eq!(
                (launch.mode, launch.context, launch.parallel),
                (mode, 0, parallel),
                "{engine:?}"
            );
            assert_eq!(memory_needed(&entry, &launch), entry.size + SPEECH_BUFFERS);
            let wish = LaunchOptions {
                threads: Some(2),
                ..context(4096)
            };
            let heeded = heeded(&entry, wish);
            assert_eq!((heeded.context, heeded.threads), (None, Some(2)));
            assert!(launch.satisfies(
                &LaunchOptions {
                    threads: None,
                    ..heeded
                },
                None
            ));
            entry.launch.parallel = Some(3);
            assert_eq!(plan(&entry, &defaults, &ram(8)).parallel, 3, "{engine:?}");
        }
    }

    #[test]
    fn vision_needs_room_for_an_image() {
        let vision = |trained| ModelEntry {
            mmproj: Some("/p.gguf".into()),
            ..with_facts(Some(trained), Some(1024))
        };
        assert_eq!(plan(&vision(8192), &context(512), &ram(8)).context, 2048);
        assert_eq!(plan(&vision(1024), &context(512), &ram(8)).context, 1024);
    }

    #[test]
    fn mode_follows_the_capabilities() {
        use Capability::{Chat, Completion, Embedding, Rerank};
        for (capabilities, expected) in [
            (&[Completion, Chat][..], EngineMode::Completion),
            (&[Embedding], EngineMode::Embedding),
            (&[Rerank], EngineMode::Rerank),
            (&[Embedding, Rerank], EngineMode::Rerank),
            (&[Completion, Embedding], EngineMode::Completion),
            (&[], EngineMode::Completion),
        ] {
            let auto = LaunchOptions::default();
            assert_eq!(
                plan(&entry(capabilities), &auto, &ram(8)).mode,
                expected,
                "{capabilities:?}"
            );
        }
        let asked = LaunchOptions {
            mode: Some(EngineMode::Embedding),
            ..LaunchOptions::default()
        };
        assert_eq!(plan(&entry(&[Completion]), &asked, &ram(8)).mode, EngineMode::Embedding);
    }

    #[test]
    fn out_of_memory_degrades_in_two_steps_at_most() {
        let mut entry = with_facts(Some(32_768), None);
        entry.facts.block_count = Some(32);
        let start = LoadedLaunch {
            context: 8192,
            parallel: 4,
            ..LoadedLaunch::default()
        };
        let gpu = degrade(&entry, &start, true, 1).unwrap();
        assert_eq!((gpu.options.gpu_layers, gpu.context), (Some(16), 8192));
        let gpu = degrade(&entry, &gpu, true, 2).unwrap();
        assert_eq!((gpu.options.gpu_layers, gpu.context, gpu.parallel), (Some(16), 4096, 1));
        assert_eq!(degrade(&entry, &gpu, true, 3), None);
        let cpu = degrade(&entry, &start, false, 1).unwrap();
        assert_eq!((cpu.context, cpu.parallel), (8192, 1));
        assert_eq!(
            degrade(
                &entry,
                &LoadedLaunch {
                    context: 2048,
                    parallel: 1,
                    ..start
                },
                false,
                1
            ),
            None
        );
    }
}
