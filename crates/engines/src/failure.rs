//! Why an engine process ended, from its signal and last lines. Its exit code only says 0 or 1 (engine guide 2.1).

use domain::{FailureReport, Level, ModelEntry, ModelSource, without_paths};
use supervisor::ExitReport;

use crate::start::{Decoded, decode};

/// When the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePhase {
    /// Before it was ready.
    Starting,
    /// After.
    Running,
}

/// What kind of fault it was: decides what the router may try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// We stopped it.
    Stopped,
    /// Memory ran out while loading: see [`crate::degrade`].
    OutOfMemory,
    /// The system killed it, probably because memory ran out.
    Killed,
    /// Its port was taken.
    Port,
    /// An argument it does not know or whose value it refuses.
    Argument,
    /// The model or projector file is missing, damaged or of a kind it does not know.
    File,
    /// The program itself cannot run here.
    Program,
    /// It crashed or ended without a reason we know.
    Crash,
}

impl FailureCause {
    /// False when the same start would fail again (promise R5).
    pub fn retryable(self) -> bool {
        match self {
            Self::Stopped | Self::Killed | Self::Port | Self::Crash => true,
            Self::OutOfMemory | Self::Argument | Self::File | Self::Program => false,
        }
    }
}

/// Classifies the end of an engine process. `reason` holds no path (promise H10); `log` holds the last lines as written.
pub fn failure(exit: &ExitReport, phase: FailurePhase) -> FailureReport {
    let (cause, reason) = classify(exit, phase);
    report(exit, cause, reason)
}

/// The report of an end whose kind is known.
pub(crate) fn report(exit: &ExitReport, cause: FailureCause, reason: String) -> FailureReport {
    FailureReport {
        reason,
        code: None,
        log: lines(exit)
            .into_iter()
            .map(|line| telemetry::clean_line(line.text.as_bytes()))
            .collect(),
        exit_code: exit.code,
        signal: exit.signal,
        retryable: cause.retryable(),
    }
}

/// Do the last lines of any engine say that memory ran out?
pub(crate) fn is_out_of_memory(lines: &[String]) -> bool {
    const PYTHON: &str = "memoryerror";
    lines.iter().any(|line| {
        let lower = line.to_lowercase();
        lower.starts_with(PYTHON) || NO_MEMORY.iter().any(|phrase| lower.contains(phrase))
    })
}

/// Do the last lines of any engine say that its port was taken?
pub(crate) fn is_port_taken(lines: &[String]) -> bool {
    lines
        .iter()
        .any(|line| line.to_lowercase().contains("address already in use"))
}

/// The last words worth showing, without paths.
pub(crate) fn last_said(lines: &[String]) -> Option<String> {
    last_error(&lines.iter().filter_map(|line| decode(line)).collect::<Vec<_>>())
}

/// What the way it ended says, for any engine.
pub(crate) fn by_signal(exit: &ExitReport, phase: FailurePhase) -> (FailureCause, String) {
    by_signal_and_words(exit, phase, &lines(exit))
}

/// What the engine says of files whose tensors are not the ones it expects.
const OTHER_LAYOUT: &[&str] = &[
    "unknown model architecture",
    "missing tensor",
    "wrong number of tensors",
    "check_tensor_dims",
    "has wrong shape",
    "error loading model hyperparameters",
    "error loading model vocabulary",
];

/// Why `entry` did not start. Some models of Ollama's library are in a layout of Ollama's own (image parts inside the model
/// file, own tensor names), which this engine refuses (Ollama contract 11): then the reason says so.
pub fn start_failure(exit: &ExitReport, entry: &ModelEntry) -> FailureReport {
    let mut report = failure(exit, FailurePhase::Starting);
    let stored = matches!(entry.source, ModelSource::OwnStore | ModelSource::OllamaStore);
    let refused = failure_cause(exit, FailurePhase::Starting) == FailureCause::File;
    if stored && refused && says(&lines(exit), OTHER_LAYOUT).is_some() {
        report.reason.push_str(
            " Some models of Ollama's library are kept in a layout of Ollama's own, which llama-server cannot load; a GGUF \
             version from a hub (hf.co/…) works.",
        );
    }
    report
}

/// The kind of fault alone.
pub fn failure_cause(exit: &ExitReport, phase: FailurePhase) -> FailureCause {
    classify(exit, phase).0
}

fn lines(exit: &ExitReport) -> Vec<Decoded> {
    exit.last_lines.iter().filter_map(|line| decode(line)).collect()
}

/// Phrases of one fault, any of which (in lower case) tells it, and the sentence for it.
struct Known {
    phrases: &'static [&'static str],
    cause: FailureCause,
    sentence: &'static str,
}

/// First match wins: what says most stands first. Phrases as written by b11549 and by releases since 2024.
const KNOWN: &[Known] = &[
    Known {
        phrases: &[
            "error while loading shared libraries",
            "cannot open shared object file",
            "version `glibc",
            "dyld: library not loaded",
        ],
        cause: FailureCause::Program,
        sentence: "The engine program is not complete or was made for another system: a library is missing. Run \
                   `llama-runner engine build`, or install the engine again.",
    },
    Known {
        phrases: &["no kernel image is available", "cuda driver version is insufficient"],
        cause: FailureCause::Program,
        sentence: "The engine was not made for this graphics card or driver. Update the driver, use another engine, or set \
                   `gpu_layers` to 0.",
    },
    Known {
        phrases: &[
            "couldn't bind http server socket",
            "couldn't bind to server socket",
            "address already in use",
        ],
        cause: FailureCause::Port,
        sentence: "The engine could not open its port because another program has it. It is tried again on another one.",
    },
    Known {
        phrases: &[
            "failed to load clip model",
            "failed to load multimodal model",
            "failed to get memory usage of mmproj",
        ],
        cause: FailureCause::File,
        sentence: "The projector file (mmproj) is damaged or does not belong to this model. Download the matching one, or \
                   remove it to use the model for text alone.",
    },
    Known {
        phrases: &[
            "no such file or directory",
            "failed to open gguf file",
            "failed to open file",
        ],
        cause: FailureCause::File,
        sentence: "The model file is missing or may not be read. Put it back, or correct its permissions.",
    },
    Known {
        phrases: &[
            "invalid magic",
            "failed to read magic",
            "bad magic",
            "not a gguf",
            "unknown file format",
        ],
        cause: FailureCause::File,
        sentence: "The model file is damaged or not a GGUF file. Download it again.",
    },
    Known {
        phrases: &["only supports up to version"],
        cause: FailureCause::File,
        sentence: "The model file is damaged, or its format is newer than this engine. Download it again, or use a newer \
                   engine.",
    },
    Known {
        phrases: &[
            "not within the file bounds",
            "corrupted or incomplete",
            "failed to read header",
            "unexpectedly reached end of file",
            "unexpected end of file",
            "failed to read key-value pairs",
            "failed to read tensor",
            "invalid tensor",
        ],
        cause: FailureCause::File,
        sentence: "The model file is incomplete or damaged; its download was probably cut. Download it again.",
    },
    Known {
        phrases: &[
            "unable to parse chat template",
            "failed to parse chat template",
            "chat template parsing error",
            "invalid chat template",
        ],
        cause: FailureCause::File,
        sentence: "The engine cannot use the chat template in this model file. Use a newer engine or another file of the model.",
    },
    Known {
        phrases: &[
            "missing tensor",
            "wrong number of tensors",
            "check_tensor_dims",
            "has wrong shape",
            "unknown pre-tokenizer",
            "unknown tokenizer",
            "error loading model vocabulary",
            "error loading model hyperparameters",
            "invalid ggml type",
            "unknown quantization",
        ],
        cause: FailureCause::File,
        sentence: "The model file does not fit this engine: it may be newer than the engine or badly converted. Use a newer \
                   engine or another file of the model.",
    },
];

const NO_MEMORY: &[&str] = &[
    "out of memory",
    "insufficient memory",
    "failed to allocate",
    "unable to allocate",
    "cudamalloc failed",
    "hipmalloc failed",
    "erroroutofdevicememory",
    "errorouthostmemory",
    "erroroutofhostmemory",
    "std::bad_alloc",
    "bad allocation",
    "not enough memory",
    "cannot allocate memory",
];

/// The engine's own last words after it refused a model for whatever reason. Another try would be refused too.
const LOADING_ERROR: &[&str] = &["exiting due to model loading error"];

fn classify(exit: &ExitReport, phase: FailurePhase) -> (FailureCause, String) {
    let lines = lines(exit);
    if exit.requested {
        return (FailureCause::Stopped, "The engine was stopped.".into());
    }
    if let Some(found) = argument(&lines) {
        return (FailureCause::Argument, found);
    }
    // Serving engines log faults of single requests too: words of the start mean nothing later.
    if phase == FailurePhase::Starting {
        if let Some(name) = between(&lines, "unknown model architecture: '", "'") {
            let name: String = name
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
                .take(40)
                .collect();
            let sentence = format!("This engine does not know the model architecture '{name}'. Use a newer engine.");
            return (FailureCause::File, sentence);
        }
        if let Some(known) = KNOWN.iter().find(|known| says(&lines, known.phrases).is_some()) {
            return (known.cause, known.sentence.into());
        }
    }
    if let Some(line) = says(&lines, NO_MEMORY) {
        return (FailureCause::OutOfMemory, no_memory(&lines, line));
    }
    let refused = exit.signal.is_none() && says(&lines, LOADING_ERROR).is_some();
    if phase == FailurePhase::Starting && refused {
        let said = last_error(&lines)
            .map(|text| format!(" It said: {text}."))
            .unwrap_or_default();
        let sentence = format!("The engine cannot load this model.{said}");
        return (FailureCause::File, sentence);
    }
    by_signal_and_words(exit, phase, &lines)
}

fn by_signal_and_words(exit: &ExitReport, phase: FailurePhase, lines: &[Decoded]) -> (FailureCause, String) {
    let when = match phase {
        FailurePhase::Starting => "while loading the model",
        FailurePhase::Running => "while serving",
    };
    let assertion = lines.iter().rev().find_map(|line| assertion(&line.text));
    match (exit.signal, exit.code) {
        (Some(9), _) => (
            FailureCause::Killed,
            format!(
                "The engine was killed by the system {when}, probably because memory ran out. Close other programs, or use a \
                 smaller context or a smaller model."
            ),
        ),
        (Some(4), _) => (
            FailureCause::Program,
            "The engine uses processor instructions that this machine lacks. Run `llama-runner engine build` to build one \
             for it."
                .into(),
        ),
        (Some(6), _) | (None, Some(134)) => (
            FailureCause::Crash,
            format!(
                "The engine stopped itself {when} at an internal check{}. If this repeats, use a newer engine.",
                assertion.map(|text| format!(" ({text})")).unwrap_or_default()
            ),
        ),
        (Some(7), _) => (
            FailureCause::Crash,
            format!("The engine lost access to the model file {when}: the file became shorter or its disk failed."),
        ),
        (Some(11), _) | (None, Some(139)) => (
            FailureCause::Crash,
            format!("The engine crashed {when} (memory access fault). If this repeats, use a newer engine or another model file."),
        ),
        (Some(signal), _) => (FailureCause::Crash, format!("The engine was ended by signal {signal} {when}.")),
        (None, Some(0)) => (FailureCause::Crash, format!("The engine ended by itself {when} without giving a reason.")),
        (None, code) => {
            let code = code.map_or_else(|| "without an exit code".into(), |code| format!("with exit code {code}"));
            let last = assertion.or_else(|| last_error(lines));
            let said = last.map(|text| format!(" It said: {text}.")).unwrap_or_default();
            (FailureCause::Crash, format!("The engine ended {code} {when}.{said}"))
        }
    }
}

/// The last line that has one of these phrases.
fn says<'a>(lines: &'a [Decoded], phrases: &[&str]) -> Option<&'a str> {
    lines
        .iter()
        .rev()
        .find(|line| {
            let lower = line.text.to_lowercase();
            phrases.iter().any(|phrase| lower.contains(phrase))
        })
        .map(|line| line.text.as_str())
}

fn between<'a>(lines: &'a [Decoded], start: &str, end: &str) -> Option<&'a str> {
    lines
        .iter()
        .find_map(|line| Some(line.text.split_once(start)?.1.split(end).next().unwrap_or_default()))
}

fn argument(lines: &[Decoded]) -> Option<String> {
    if let Some(flag) = between(lines, "error: invalid argument: ", " ") {
        return Some(format!(
            "The engine does not know the argument '{}'. Remove it from the extra arguments, or use a newer engine.",
            short(flag)
        ));
    }
    let line = lines
        .iter()
        .find(|line| line.text.starts_with("error while handling argument"))?;
    let (flag, why) = line.text.split_once('"')?.1.split_once('"')?;
    let why = without_paths(why.trim_start_matches(':').trim().trim_start_matches("error:").trim());
    let why = if why.is_empty() || why == "stoi" || why == "stof" {
        "it is not a number".into()
    } else {
        why
    };
    Some(format!(
        "The engine refused the value of '{}': {}. Correct it in the settings.",
        short(flag),
        short(&why)
    ))
}

fn no_memory(lines: &[Decoded], line: &str) -> String {
    let what = if lines.iter().any(|l| l.text.to_lowercase().contains("kv cache")) {
        "its context (KV cache)"
    } else if lines
        .iter()
        .any(|l| l.text.contains("compute") && l.text.contains("buffer"))
    {
        "its computation buffers"
    } else {
        "the model"
    };
    let size = lines
        .iter()
        .rev()
        .find_map(|l| size_in(&l.text))
        .or_else(|| size_in(line));
    let size = size.map(|mib| format!(" of {mib} MiB")).unwrap_or_default();
    format!(
        "There is not enough memory for {what}{size}. Use a smaller context, fewer parallel requests or a smaller model, or \
         unload other models."
    )
}

/// `allocating 1956.77 MiB`, `buffer of size 2051819552`, `(attempted to allocate 1956.77 MB)`, in MiB.
fn size_in(text: &str) -> Option<u64> {
    let number_after = |marker: &str| {
        let rest = text.split_once(marker)?.1.trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        rest[..end].trim_end_matches('.').parse::<f64>().ok()
    };
    if let Some(bytes) = number_after("buffer of size ") {
        return Some((bytes / f64::from(1 << 20)).ceil() as u64);
    }
    number_after("attempted to allocate ")
        .or_else(|| number_after("allocating "))
        .map(|mib| mib.ceil() as u64)
}

/// `/build/ggml.c:123: GGML_ASSERT(n > 0) failed` without the path.
fn assertion(text: &str) -> Option<String> {
    let at = text
        .find("GGML_ASSERT")
        .or_else(|| text.find("CUDA error"))
        .or_else(|| text.find("GGML_ABORT"))?;
    Some(short(&without_paths(&text[at..])))
}

/// Lines that only repeat that something failed before, or that all was well. The address of an engine is nobody's business
/// (promise H10).
const EMPTY_WORDS: &[&str] = &[
    "exiting due to",
    "cleaning up",
    "fit_memory_breakdown",
    "to show complete usage",
    "listening on",
    "slots are idle",
];

fn last_error(lines: &[Decoded]) -> Option<String> {
    let useful = |line: &&Decoded| !EMPTY_WORDS.iter().any(|words| line.text.contains(words));
    // Rings keep the text without the level: then the last words are the best there is.
    let line = lines
        .iter()
        .rev()
        .filter(useful)
        .find(|line| line.level == Level::Error)
        .or_else(|| lines.iter().rev().find(useful))?;
    let text = without_paths(&line.text);
    let text = text.trim_end_matches(['.', ' ']);
    (!text.is_empty()).then(|| short(text))
}

fn short(text: &str) -> String {
    let clean = telemetry::clean_line(text.as_bytes()).replace('\t', " ");
    let mut cut: String = clean.chars().take(200).collect();
    if cut.len() < clean.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
