//! The header and the variables of a `model.bin` in CTranslate2's form: what a Whisper model is, without reading its weights.
//!
//! Layout (CTranslate2 `specs/model_spec.py`, binary version 6), numbers little endian: version u32, name of the specification,
//! revision u32, number of variables u32; per variable a name, rank u8, each dimension u32, type u8, bytes u32, the bytes.
//! A text is its length with the final zero (u16), then the bytes.

use std::io::{self, BufRead, Seek};

use thiserror::Error;

/// The specification's name of Whisper models.
const WHISPER: &str = "WhisperSpec";
/// Versions whose variables look as above.
const KNOWN_VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;
/// The largest Whisper has some 1 300 variables with names of up to 60 bytes and at most 3 dimensions.
const MOST_VARIABLES: u32 = 1 << 16;
const LONGEST_NAME: u16 = 1024;
const MOST_DIMENSIONS: u8 = 8;

/// What the variables of a Whisper model tell.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Weights {
    /// Bands of the spectrogram: 80, or 128 since large-v3.
    pub(crate) mel_bands: Option<u32>,
    /// Rows of the embeddings, one per token.
    pub(crate) vocabulary: Option<u32>,
    /// Width of the embeddings.
    pub(crate) width: Option<u32>,
    pub(crate) encoder_layers: u32,
    pub(crate) decoder_layers: u32,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    /// `F32`, `F16`, `BF16`, `INT8`, `INT16`; empty: it cannot be told.
    pub(crate) quantization: &'static str,
}

/// Why a file is no Whisper model.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    /// Something else, which is fine.
    #[error("is not a Whisper model")]
    Other,
    /// A Whisper model that the engine could not load.
    #[error("{0}")]
    Damaged(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads everything but the weights of a file of `len` bytes.
pub(crate) fn read(file: &mut (impl BufRead + Seek), len: u64) -> Result<Weights, Refused> {
    let mut reader = Reader { file, at: 0, len };
    // A file that ends before its kind is known is some other file.
    let other = |error| match error {
        Refused::Damaged(_) => Refused::Other,
        error => error,
    };
    let version = reader.u32().map_err(other)?;
    // Before version 2 there was no name, and no Whisper either.
    if !(2..=64).contains(&version) || reader.text().map_err(other)? != WHISPER {
        return Err(Refused::Other);
    }
    reader.u32()?;
    if !KNOWN_VERSIONS.contains(&version) {
        return Ok(Weights::default());
    }
    let count = reader.u32()?;
    if count > MOST_VARIABLES {
        return Err(Refused::Damaged("model.bin is damaged: it claims too many variables"));
    }
    let mut weights = Weights::default();
    for _ in 0..count {
        let variable = reader.variable()?;
        weights.add(&variable);
    }
    Ok(weights)
}

struct Variable {
    name: String,
    shape: Vec<u32>,
    kind: u8,
    bytes: u32,
}

struct Reader<'f, F> {
    file: &'f mut F,
    at: u64,
    len: u64,
}

impl<F: BufRead + Seek> Reader<'_, F> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Counts bytes that are read or passed over next.
    fn claim(&mut self, bytes: u64) -> Result<(), Refused> {
        self.at = self.at.saturating_add(bytes);
        if self.at > self.len {
            return Err(Refused::Damaged("model.bin is cut short: download it again"));
        }
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Result<String, Refused> {
        let len = u16::from_le_bytes(self.bytes()?);
        if len > LONGEST_NAME {
            return Err(Refused::Damaged("model.bin is damaged: one of its names is too long"));
        }
        self.claim(u64::from(len))?;
        let mut bytes = vec![0; usize::from(len)];
        self.file.read_exact(&mut bytes)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn variable(&mut self) -> Result<Variable, Refused> {
        let name = self.text()?;
        let [rank] = self.bytes()?;
        if rank > MOST_DIMENSIONS {
            return Err(Refused::Damaged(
                "model.bin is damaged: one of its variables has too many dimensions",
            ));
        }
        let shape = (0..rank).map(|_| self.u32()).collect::<Result<_, _>>()?;
        let [kind] = self.bytes()?;
        let bytes = self.u32()?;
        self.claim(u64::from(bytes))?;
        self.file.seek_relative(i64::from(bytes))?;
        Ok(Variable {
            name,
            shape,
            kind,
            bytes,
        })
    }
}

impl Weights {
    fn add(&mut self, variable: &Variable) {
        let Variable {
            name,
            shape,
            kind,
            bytes,
        } = variable;
        // Factors of quantized weights are no weights of the model.
        if !shape.is_empty() && !name.ends_with("_scale") {
            let values = shape
                .iter()
                .fold(1_u64, |product, n| product.saturating_mul(u64::from(*n)));
            self.parameters = self.parameters.saturating_add(values);
            self.bytes = self.bytes.saturating_add(u64::from(*bytes));
        }
        match (name.as_str(), shape.as_slice()) {
            ("decoder/embeddings/weight", [vocabulary, width]) => {
                self.vocabulary = Some(*vocabulary);
                self.width = Some(*width);
                self.quantization = label(*kind);
            }
            ("encoder/conv1/weight", [_, mel_bands, _]) => self.mel_bands = Some(*mel_bands),
            _ => {}
        }
        for (part, layers) in [
            ("encoder/layer_", &mut self.encoder_layers),
            ("decoder/layer_", &mut self.decoder_layers),
        ] {
            // `encoder/layer_norm` is no layer.
            let number = name.strip_prefix(part).and_then(|rest| rest.split('/').next());
            if let Some(number) = number.and_then(|number| number.parse::<u16>().ok()) {
                *layers = (*layers).max(u32::from(number) + 1);
            }
        }
    }
}

/// CTranslate2's types, by number (`types.h`), in the words of other models.
fn label(kind: u8) -> &'static str {
    match kind {
        0 => "F32",
        1 => "INT8",
        2 => "INT16",
        4 => "F16",
        5 => "BF16",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use testkit::WhisperCraft;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Weights, Refused> {
        read(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn facts_from_variables() {
        let weights = read_bytes(
            &WhisperCraft {
                layers: (4, 2),
                mel_bands: 128,
                kind: 4,
                ..WhisperCraft::default()
            }
            .weights(),
        )
        .unwrap();
        assert_eq!(
            weights,
            Weights {
                mel_bands: Some(128),
                vocabulary: Some(51_865),
                width: Some(4),
                encoder_layers: 4,
                decoder_layers: 2,
                parameters: 51_865 * 4 + 4 * 128 * 3 + 4 + 6 * 16,
                bytes: 16 + 12 + 16 + 6 * 16,
                quantization: "F16",
            }
        );
        let newer = WhisperCraft {
            version: 7,
            ..WhisperCraft::default()
        };
        assert_eq!(
            read_bytes(&newer.weights()).unwrap(),
            Weights::default(),
            "a later form is not guessed at"
        );
    }

    #[test]
    fn other_files_are_other_files() {
        let translation = WhisperCraft {
            specification: "TransformerSpec",
            ..WhisperCraft::default()
        };
        for bytes in [
            &b""[..],
            b"x",
            b"GGUF",
            &[0; 4096],
            &[255; 4096],
            &translation.weights(),
        ] {
            assert!(matches!(read_bytes(bytes), Err(Refused::Other)), "{:?}", bytes.get(..8));
        }
    }

    #[test]
    fn cut_short_anywhere() {
        let whole = WhisperCraft::default().weights();
        for len in 20..whole.len() - 4 {
            let cut = read_bytes(&whole[..len]);
            assert!(matches!(cut, Err(Refused::Damaged(_))), "{len}: {cut:?}");
        }
        assert!(
            read_bytes(&whole[..whole.len() - 4]).is_ok(),
            "aliases come after all that is wanted"
        );
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read_bytes(&bytes);
        }

        #[test]
        fn any_damage(at in 0_usize..600, bytes in proptest::collection::vec(any::<u8>(), 1..9)) {
            let mut whole = WhisperCraft::default().weights();
            let at = at.min(whole.len() - bytes.len());
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = read_bytes(&whole);
        }
    }
}
