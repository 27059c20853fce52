//! Quantizations in file names.

/// Bits per weight of Q4_K_M: the variant that a name without a quantization means.
pub const PREFERRED_BITS: f64 = 4.58;

/// Splits the quantization off the end of a file stem: `Llama-3-8B.Q4_K_M` → (`Llama-3-8B`, `q4_k_m`).
///
/// The longest tail that names a quantization counts, so that `UD-Q4_K_XL` and `i1-Q4_K_M` stay whole.
pub fn split_quant(stem: &str) -> (&str, Option<String>) {
    for (at, _) in stem
        .char_indices()
        .filter(|(at, c)| *at > 0 && matches!(c, '-' | '.' | '_' | ' '))
    {
        let (Some(base), Some(tail)) = (stem.get(..at), stem.get(at + 1..)) else {
            continue;
        };
        let tail = normal_quant(tail);
        if is_quant(&tail) {
            return (base, Some(tail));
        }
    }
    (stem, None)
}

/// A quantization as keys spell it: lower case, underscores.
pub fn normal_quant(text: &str) -> String {
    text.trim().to_lowercase().replace(['-', ' ', '.'], "_")
}

fn is_quant(tail: &str) -> bool {
    let tail = tail
        .strip_prefix("ud_")
        .or_else(|| tail.strip_prefix("i1_"))
        .unwrap_or(tail);
    if matches!(
        tail,
        "f16" | "fp16" | "bf16" | "f32" | "fp32" | "mxfp4" | "mxfp4_moe" | "nvfp4" | "tq1_0" | "tq2_0"
    ) {
        return true;
    }
    let digits = tail.strip_prefix("iq").or_else(|| tail.strip_prefix('q'));
    let Some((digit, rest)) = digits.and_then(|rest| rest.split_at_checked(1)) else {
        return false;
    };
    matches!(digit, "1" | "2" | "3" | "4" | "5" | "6" | "8")
        && rest.split('_').enumerate().all(|(i, word)| match i {
            0 => word.is_empty(),
            _ => matches!(
                word,
                "0" | "1" | "k" | "nl" | "xxs" | "xs" | "s" | "m" | "l" | "xl" | "xxl" | "4" | "8"
            ),
        })
}
