//! Why a speech process ended.

use supervisor::ExitReport;

use super::start::CANNOT_LOAD;
use crate::failure::{by_signal, is_out_of_memory, last_said};
use crate::{FailureCause, FailurePhase};

/// The model could not be loaded (audio contract 7.2).
const LOAD_FAILED: i32 = 3;
/// An argument is not one of the program's.
const BAD_ARGUMENTS: i32 = 4;

/// The kind of fault and a sentence without paths.
pub(crate) fn ended(exit: &ExitReport, phase: FailurePhase) -> (FailureCause, String) {
    if exit.requested {
        return (FailureCause::Stopped, "The engine was stopped.".into());
    }
    let lines = &exit.last_lines;
    if is_out_of_memory(lines) {
        let sentence = "There is not enough memory for the speech model. Use a smaller one, set \
                        `engines.faster_whisper.compute_type` to \"int8\", or unload other models.";
        return (FailureCause::OutOfMemory, sentence.into());
    }
    match exit.code {
        Some(LOAD_FAILED) => {
            let said = lines.iter().rev().find_map(|line| line.strip_prefix(CANNOT_LOAD));
            let said = said.map(domain::without_paths).filter(|said| !said.is_empty());
            let sentence = match said {
                Some(said) => format!("The speech model cannot be loaded. {said}"),
                None => "The speech model cannot be loaded. Download it again.".into(),
            };
            return (FailureCause::File, sentence);
        }
        Some(BAD_ARGUMENTS) => {
            let said = last_said(lines)
                .map(|said| format!(" It said: {said}."))
                .unwrap_or_default();
            let sentence = format!(
                "The speech engine does not know one of its arguments.{said} Correct `engines.faster_whisper` or the model's \
                 `extra_args` in the settings."
            );
            return (FailureCause::Argument, sentence);
        }
        _ => {}
    }
    let lacks = lines
        .iter()
        .rev()
        .find_map(|line| line.split_once("No module named ").map(|(_, name)| name));
    if let Some(name) = lacks.filter(|_| phase == FailurePhase::Starting) {
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "_.".contains(*c))
            .collect();
        let sentence = format!(
            "The Python of the speech engine lacks the module {name}. Run `llama-runner engine whisper install`, or correct \
             `engines.faster_whisper.python`."
        );
        return (FailureCause::Program, sentence);
    }
    if exit.signal == Some(4) {
        let sentence = "The speech engine uses processor instructions that this machine lacks. Set \
                        `engines.faster_whisper.compute_type` to \"float32\".";
        return (FailureCause::Program, sentence.into());
    }
    if exit.signal == Some(9) {
        let sentence = "The speech engine was killed by the system, probably because memory ran out. Close other programs, or \
                        use a smaller model.";
        return (FailureCause::Killed, sentence.into());
    }
    by_signal(exit, phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, signal: Option<i32>, lines: &[&str]) -> ExitReport {
        ExitReport {
            code,
            signal,
            requested: false,
            last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn ends_are_told_apart() {
        use FailureCause::{Argument, Crash, File, Killed, OutOfMemory, Program};
        for (exit, cause, words) in [
            (
                exit(
                    Some(3),
                    None,
                    &["x", "cannot load the model: The folder '/a/b' has no model.bin."],
                ),
                File,
                "The folder 'file' has no model.bin.",
            ),
            (exit(Some(3), None, &[]), File, "Download it again"),
            (
                exit(Some(4), None, &["error: unrecognized arguments: --x"]),
                Argument,
                "--x",
            ),
            (
                exit(Some(3), None, &["cannot load the model: CUDA out of memory"]),
                OutOfMemory,
                "smaller",
            ),
            (
                exit(None, Some(6), &["terminate called", "what():  std::bad_alloc"]),
                OutOfMemory,
                "memory",
            ),
            (exit(Some(1), None, &["MemoryError"]), OutOfMemory, "memory"),
            (
                exit(Some(1), None, &["ModuleNotFoundError: No module named 'av'"]),
                Program,
                "module av",
            ),
            (exit(None, Some(9), &[]), Killed, "killed by the system"),
            (exit(None, Some(11), &[]), Crash, "crashed"),
            (exit(None, Some(4), &[]), Program, "float32"),
            (exit(Some(1), None, &["ValueError: x"]), Crash, "ValueError: x"),
        ] {
            let (found, sentence) = ended(&exit, FailurePhase::Starting);
            assert_eq!(found, cause, "{exit:?}: {sentence}");
            assert!(sentence.contains(words), "{sentence}");
        }
        assert!(!ended(&exit(Some(3), None, &[]), FailurePhase::Starting).0.retryable());
    }
}
