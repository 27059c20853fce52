//! `llama-quantize`, where a release brings it beside `llama-server`.

use std::path::{Path, PathBuf};

use supervisor::StopPlan;

use crate::launch::inherited_environment;
use crate::process::count;
use crate::{EngineBinary, Launch};

/// The program beside the engine, or beside what a link to the engine leads to.
pub fn quantizer(binary: &EngineBinary) -> Option<PathBuf> {
    let beside = |path: &Path| path.with_file_name(format!("llama-quantize{}", std::env::consts::EXE_SUFFIX));
    let linked = std::fs::canonicalize(&binary.path).ok();
    std::iter::once(beside(&binary.path))
        .chain(linked.as_deref().map(beside))
        .find(|path| path.is_file())
}

/// The command that writes `input` as `kind` (`Q8_0`, …) to `output`.
pub fn quantize(program: PathBuf, input: &Path, output: &Path, kind: &str) -> Launch {
    Launch {
        args: vec![input.into(), output.into(), kind.into()],
        env: inherited_environment(&program),
        program,
        stop: StopPlan::default(),
    }
}

/// How far it is, from a line of its output: `[  12/ 291] blk.1.attn_q.weight - …`. Between 0 and 1.
pub fn quantize_progress(line: &str) -> Option<f32> {
    count(line).map(|(done, of)| done as f32 / of as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_tensor_lines() {
        assert_eq!(
            quantize_progress("[   3/   4]  blk.0.ffn_up.weight - [64, 64]"),
            Some(0.75)
        );
        for line in ["", "[1/0] x", "[5/4] x", "[a/4] x", "main: quantizing", "[1 4]"] {
            assert_eq!(quantize_progress(line), None, "{line}");
        }
    }
}
