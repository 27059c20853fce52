/// A tensor storage type: `block` values take `bytes` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantType {
    /// Code in the file.
    pub code: u32,
    /// Name as llama.cpp and Ollama show it.
    pub name: &'static str,
    /// Values per block.
    pub block: u64,
    /// Bytes per block.
    pub bytes: u64,
}

/// All types of ggml at llama.cpp b11549 (`ggml_type` and the block sizes of `ggml-common.h`), and the types that older
/// files use although the engine has dropped them (31 to 33, 36 to 38).
const TYPES: &[QuantType] = &[
    q(0, "F32", 1, 4),
    q(1, "F16", 1, 2),
    q(2, "Q4_0", 32, 18),
    q(3, "Q4_1", 32, 20),
    q(6, "Q5_0", 32, 22),
    q(7, "Q5_1", 32, 24),
    q(8, "Q8_0", 32, 34),
    q(9, "Q8_1", 32, 36),
    q(10, "Q2_K", 256, 84),
    q(11, "Q3_K", 256, 110),
    q(12, "Q4_K", 256, 144),
    q(13, "Q5_K", 256, 176),
    q(14, "Q6_K", 256, 210),
    q(15, "Q8_K", 256, 292),
    q(16, "IQ2_XXS", 256, 66),
    q(17, "IQ2_XS", 256, 74),
    q(18, "IQ3_XXS", 256, 98),
    q(19, "IQ1_S", 256, 50),
    q(20, "IQ4_NL", 32, 18),
    q(21, "IQ3_S", 256, 110),
    q(22, "IQ2_S", 256, 82),
    q(23, "IQ4_XS", 256, 136),
    q(24, "I8", 1, 1),
    q(25, "I16", 1, 2),
    q(26, "I32", 1, 4),
    q(27, "I64", 1, 8),
    q(28, "F64", 1, 8),
    q(29, "IQ1_M", 256, 56),
    q(30, "BF16", 1, 2),
    q(31, "Q4_0_4_4", 32, 18),
    q(32, "Q4_0_4_8", 32, 18),
    q(33, "Q4_0_8_8", 32, 18),
    q(34, "TQ1_0", 256, 54),
    q(35, "TQ2_0", 256, 66),
    q(36, "IQ4_NL_4_4", 32, 18),
    q(37, "IQ4_NL_4_8", 32, 18),
    q(38, "IQ4_NL_8_8", 32, 18),
    q(39, "MXFP4", 32, 17),
    q(40, "NVFP4", 64, 36),
    q(41, "Q1_0", 128, 18),
    q(42, "Q2_0", 64, 18),
];

const fn q(code: u32, name: &'static str, block: u64, bytes: u64) -> QuantType {
    QuantType {
        code,
        name,
        block,
        bytes,
    }
}

/// The storage type of this code; `None` for one that is newer than this table.
pub fn quant_type(code: u32) -> Option<&'static QuantType> {
    TYPES.iter().find(|quant| quant.code == code)
}

/// File types (`general.file_type`, `llama_ftype`), their labels, and their usual bits per weight.
const FILE_TYPES: &[(u32, &str, f64)] = &[
    (0, "F32", 32.0),
    (1, "F16", 16.0),
    (2, "Q4_0", 4.55),
    (3, "Q4_1", 5.0),
    (7, "Q8_0", 8.5),
    (8, "Q5_0", 5.5),
    (9, "Q5_1", 6.0),
    (10, "Q2_K", 2.96),
    (11, "Q3_K_S", 3.41),
    (12, "Q3_K_M", 3.74),
    (13, "Q3_K_L", 4.03),
    (14, "Q4_K_S", 4.37),
    (15, "Q4_K_M", 4.58),
    (16, "Q5_K_S", 5.21),
    (17, "Q5_K_M", 5.33),
    (18, "Q6_K", 6.14),
    (19, "IQ2_XXS", 2.06),
    (20, "IQ2_XS", 2.31),
    (21, "Q2_K_S", 2.75),
    (22, "IQ3_XS", 3.3),
    (23, "IQ3_XXS", 3.06),
    (24, "IQ1_S", 1.56),
    (25, "IQ4_NL", 4.5),
    (26, "IQ3_S", 3.44),
    (27, "IQ3_M", 3.66),
    (28, "IQ2_S", 2.5),
    (29, "IQ2_M", 2.7),
    (30, "IQ4_XS", 4.25),
    (31, "IQ1_M", 1.75),
    (32, "BF16", 16.0),
    (33, "Q4_0_4_4", 4.55),
    (34, "Q4_0_4_8", 4.55),
    (35, "Q4_0_8_8", 4.55),
    (36, "TQ1_0", 1.69),
    (37, "TQ2_0", 2.06),
    (38, "MXFP4_MOE", 4.25),
    (39, "NVFP4", 4.5),
    (40, "Q1_0", 1.13),
    (41, "Q2_0", 2.25),
];

/// The engine adds this bit to a file type that it guessed.
const GUESSED: u32 = 1024;

/// Label of a `general.file_type` as Ollama and llama.cpp write it; `None` for an unknown code.
pub fn file_type_label(code: u32) -> Option<&'static str> {
    let code = code & !GUESSED;
    FILE_TYPES
        .iter()
        .find(|(known, _, _)| *known == code)
        .map(|(_, label, _)| *label)
}

/// Usual bits per weight of a label, in any case; `None` for an unknown label.
pub fn label_bits(label: &str) -> Option<f64> {
    FILE_TYPES
        .iter()
        .find(|(_, known, _)| known.eq_ignore_ascii_case(label))
        .map(|(_, _, bits)| *bits)
}

/// The label to show when a file does not say its type but most of it is stored as `quant`. Same choice as the engine's.
pub(crate) fn label_of_tensors(quant: &QuantType) -> &'static str {
    match quant.name {
        "Q3_K" => "Q3_K_M",
        "Q4_K" => "Q4_K_M",
        "Q5_K" => "Q5_K_M",
        "MXFP4" => "MXFP4_MOE",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sound() {
        for (i, a) in TYPES.iter().enumerate() {
            assert!(a.block > 0 && a.bytes > 0);
            assert!(
                TYPES.iter().skip(i + 1).all(|b| a.code != b.code && a.name != b.name),
                "{}",
                a.name
            );
        }
        for (i, a) in FILE_TYPES.iter().enumerate() {
            assert!(
                FILE_TYPES.iter().skip(i + 1).all(|b| a.0 != b.0 && a.1 != b.1),
                "{}",
                a.1
            );
        }
        assert_eq!(
            quant_type(12).map(|t| (t.name, t.block, t.bytes)),
            Some(("Q4_K", 256, 144))
        );
        assert_eq!(quant_type(4), None);
        assert_eq!(file_type_label(15), Some("Q4_K_M"));
        assert_eq!(file_type_label(15 | GUESSED), Some("Q4_K_M"));
        assert_eq!(file_type_label(999), None);
        assert_eq!(label_bits("q8_0"), Some(8.5));
    }
}
