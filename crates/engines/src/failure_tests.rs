use super::*;

fn exit(code: Option<i32>, signal: Option<i32>, lines: &[&str]) -> ExitReport {
    ExitReport {
        code,
        signal,
        requested: false,
        last_lines: lines.iter().map(|l| (*l).to_owned()).collect(),
    }
}

fn error_line(text: &str) -> String {
    serde_json::json!({"type": "log", "time": 1, "level": "error", "msg": format!("{text}\n")}).to_string()
}

/// Lines as b11549 wrote them; each is checked as raw JSON lines and as the ring shows them.
fn check(lines: &[&str], cause: FailureCause, words: &[&str]) {
    let raw: Vec<String> = lines.iter().map(|l| error_line(l)).collect();
    let raw: Vec<&str> = raw.iter().map(String::as_str).collect();
    for form in [&raw[..], lines] {
        let exit = exit(Some(1), None, form);
        assert_eq!(failure_cause(&exit, FailurePhase::Starting), cause, "{form:?}");
        let report = failure(&exit, FailurePhase::Starting);
        for word in words {
            assert!(report.reason.contains(word), "{word:?} in {:?}", report.reason);
        }
        assert!(!report.reason.contains("/models"), "{}", report.reason);
        assert_eq!(report.retryable, cause.retryable());
        assert_eq!(report.log.len(), lines.len());
        assert_eq!(report.exit_code, Some(1));
    }
}

#[test]
fn files() {
    let tail = [
        "llama_model_load_from_file_impl: failed to load model",
        "cmn  common_init_: failed to load model '/models/m.gguf'",
        "srv    load_model: failed to load model, '/models/m.gguf'",
        "srv  llama_server: exiting due to model loading error",
    ];
    for (first, words) in [
        (
            "gguf_init_from_file: failed to open GGUF file '/models/m.gguf' (No such file or directory)",
            "missing",
        ),
        (
            "gguf_init_from_reader: invalid magic characters: 'hell', expected 'GGUF'",
            "not a GGUF",
        ),
        ("gguf_init_from_reader: failed to read magic", "not a GGUF"),
        (
            "gguf_init_from_reader: this GGUF file is version 1953849888 but this software only supports up to version 3",
            "damaged, or its format is newer",
        ),
        ("gguf_init_from_reader: failed to read header", "incomplete or damaged"),
        (
            "llama_model_load: error loading model: a reason of next year",
            "cannot load this model. It said: ",
        ),
        (
            "llama_model_load: error loading model: tensor 'blk.1.ffn_up.weight' data is not within the file bounds, model is \
             corrupted or incomplete",
            "Download it again",
        ),
        (
            "llama_model_load: error loading model: unknown model architecture: 'zzzzz'",
            "architecture 'zzzzz'",
        ),
        (
            "llama_model_load: error loading model: check_tensor_dims: tensor 'blk.0.attn_q.weight' not found",
            "newer engine",
        ),
        (
            "llama_model_load: error loading model: missing tensor 'output_norm.weight'",
            "newer engine",
        ),
        (
            "mtmd_init_from_file: error: Failed to load CLIP model from /models/p.gguf",
            "mmproj",
        ),
    ] {
        let mut lines = vec![first];
        lines.extend(tail);
        check(&lines, FailureCause::File, &[words]);
    }
}

#[test]
fn memory() {
    check(
        &[
            "ggml_aligned_malloc: insufficient memory (attempted to allocate 1956.77 MB)",
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 2051819552",
            "graph_reserve: failed to allocate compute buffers",
            "srv    load_model: failed to create_context with model '/models/m.gguf'",
        ],
        FailureCause::OutOfMemory,
        &["computation buffers", "1957 MiB", "smaller context"],
    );
    check(
        &[
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 24576.00 MiB on device 0: cudaMalloc failed: out of memory",
            "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
        ],
        FailureCause::OutOfMemory,
        &["KV cache", "24576 MiB"],
    );
    check(
        &["terminate called: std::bad_alloc"],
        FailureCause::OutOfMemory,
        &["the model."],
    );
}

#[test]
fn arguments_and_port_and_program() {
    check(
        &["error: invalid argument: --nonsense"],
        FailureCause::Argument,
        &["'--nonsense'"],
    );
    check(
        &["error while handling argument \"-c\": stoi", "usage:"],
        FailureCause::Argument,
        &["'-c'", "not a number"],
    );
    check(
        &["error while handling argument \"-fa\": error: unknown value for --flash-attn: 'maybe'"],
        FailureCause::Argument,
        &["'-fa'", "unknown value"],
    );
    check(
        &["srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18771"],
        FailureCause::Port,
        &["port"],
    );
    check(
        &[
            "/models/llama-server: error while loading shared libraries: libssl.so.3: cannot open shared object file: No such file or directory",
        ],
        FailureCause::Program,
        &["library is missing"],
    );
}

#[test]
fn signals() {
    use FailureCause::{Crash, Killed, Program, Stopped};
    let assert_line = "/home/me/src/ggml.c:12: GGML_ASSERT(n > 0) failed";
    for (code, signal, lines, phase, cause, words) in [
        (None, Some(9), &[][..], FailurePhase::Running, Killed, "memory ran out"),
        (
            None,
            Some(9),
            &["srv  slot: error: x"],
            FailurePhase::Starting,
            Killed,
            "while loading",
        ),
        (
            None,
            Some(6),
            &[assert_line],
            FailurePhase::Running,
            Crash,
            "(GGML_ASSERT(n > 0) failed)",
        ),
        (Some(134), None, &[], FailurePhase::Running, Crash, "internal check."),
        (
            None,
            Some(11),
            &[],
            FailurePhase::Running,
            Crash,
            "crashed while serving",
        ),
        (None, Some(7), &[], FailurePhase::Running, Crash, "model file"),
        (None, Some(4), &[], FailurePhase::Starting, Program, "engine build"),
        (None, Some(15), &[], FailurePhase::Running, Crash, "signal 15"),
        (
            Some(0),
            None,
            &[],
            FailurePhase::Running,
            Crash,
            "without giving a reason",
        ),
        (
            Some(3),
            None,
            &["odd words", "cleaning up before exit"],
            FailurePhase::Starting,
            Crash,
            "exit code 3 while loading the model. It said: odd words.",
        ),
        (
            Some(1),
            None,
            &["cannot use '/home/me/x' today"],
            FailurePhase::Starting,
            Crash,
            "cannot use 'file' today",
        ),
        (None, None, &[], FailurePhase::Starting, Crash, "without an exit code"),
    ] {
        let exit = exit(code, signal, lines);
        let report = failure(&exit, phase);
        assert_eq!(failure_cause(&exit, phase), cause, "{report:?}");
        assert!(report.reason.contains(words), "{report:?}");
        assert!(!report.reason.contains("/home"), "{report:?}");
    }
    let silent = exit(
        Some(1),
        None,
        &[
            "srv  llama_server: listening on http://127.0.0.1:34557",
            "srv  update_slots: all slots are idle",
        ],
    );
    let report = failure(&silent, FailurePhase::Running);
    assert!(report.reason.ends_with("with exit code 1 while serving."), "{report:?}");
    let stopped = ExitReport {
        requested: true,
        ..exit(None, Some(9), &["GGML_ASSERT(x) failed"])
    };
    assert_eq!(failure_cause(&stopped, FailurePhase::Running), Stopped);
}

#[test]
fn a_crash_while_loading_stays_a_crash_and_memory_stays_memory() {
    let tail = "srv  llama_server: exiting due to model loading error";
    let killed = exit(None, Some(11), &[tail]);
    assert_eq!(failure_cause(&killed, FailurePhase::Starting), FailureCause::Crash);
    let full = exit(Some(1), None, &["ggml_aligned_malloc: insufficient memory", tail]);
    assert_eq!(failure_cause(&full, FailurePhase::Starting), FailureCause::OutOfMemory);
    let serving = exit(Some(1), None, &[tail]);
    assert_eq!(failure_cause(&serving, FailurePhase::Running), FailureCause::Crash);
}

#[test]
fn words_of_single_requests_do_not_explain_a_crash() {
    // A serving engine was told of a missing file by one request, and crashed an hour later.
    let exit = exit(
        None,
        Some(11),
        &["srv: could not open image: No such file or directory"],
    );
    assert_eq!(failure_cause(&exit, FailurePhase::Running), FailureCause::Crash);
}

#[test]
fn a_stored_model_in_another_layout_says_so() {
    let exit = |line: &str| exit(Some(1), None, &[line, "main: exiting due to model loading error"]);
    let wrong =
        exit("llama_model_load: error loading model: done_getting_tensors: wrong number of tensors; expected 1, got 2");
    let mut model = crate::test_entry::entry(&[]);
    let reason = |model: &domain::ModelEntry, exit: &ExitReport| start_failure(exit, model).reason;
    assert!(!reason(&model, &wrong).contains("Ollama"));
    for source in [domain::ModelSource::OwnStore, domain::ModelSource::OllamaStore] {
        model.source = source;
        assert!(reason(&model, &wrong).contains("layout of Ollama's own"));
        assert!(!reason(&model, &exit("gguf_init_from_reader: failed to read header")).contains("Ollama"));
    }
}
