use std::io;
use std::path::Path;

/// A made-up speech-to-text model in CTranslate2's form: sound to whoever reads headers, nothing an engine could load.
#[derive(Debug, Clone)]
pub struct WhisperCraft {
    /// Version of the binary form; 6 is the present one.
    pub version: u32,
    /// Name of the specification; anything but `WhisperSpec` is no Whisper.
    pub specification: &'static str,
    /// Layers of the encoder and of the decoder.
    pub layers: (u32, u32),
    /// Bands of the spectrogram.
    pub mel_bands: u32,
    /// Tokens, in the weights and in the vocabulary's file.
    pub vocabulary: u32,
    /// CTranslate2's number of the weights' type: 0 F32, 1 INT8, 4 F16.
    pub kind: u8,
}

impl Default for WhisperCraft {
    fn default() -> Self {
        Self {
            version: 6,
            specification: "WhisperSpec",
            layers: (2, 2),
            mel_bands: 80,
            vocabulary: 51_865,
            kind: 1,
        }
    }
}

impl WhisperCraft {
    /// The bytes of `model.bin`; of every variable far fewer than its shape says.
    pub fn weights(&self) -> Vec<u8> {
        let mut variables: Vec<(String, Vec<u32>, u8, u32)> = vec![
            ("decoder/activation".into(), vec![], 1, 1),
            (
                "decoder/embeddings/weight".into(),
                vec![self.vocabulary, 4],
                self.kind,
                16,
            ),
            ("decoder/embeddings/weight_scale".into(), vec![self.vocabulary], 0, 4),
            ("encoder/conv1/weight".into(), vec![4, self.mel_bands, 3], 0, 12),
            ("encoder/layer_norm/gamma".into(), vec![4], 0, 16),
        ];
        for (part, count) in [("encoder", self.layers.0), ("decoder", self.layers.1)] {
            variables.extend((0..count).map(|layer| {
                let name = format!("{part}/layer_{layer}/ffn/linear_0/weight");
                (name, vec![4, 4], self.kind, 16)
            }));
        }
        let mut bytes = self.version.to_le_bytes().to_vec();
        text(&mut bytes, self.specification);
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((variables.len() as u32).to_le_bytes());
        for (name, shape, kind, len) in variables {
            text(&mut bytes, &name);
            bytes.push(shape.len() as u8);
            bytes.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
            bytes.push(kind);
            bytes.extend(len.to_le_bytes());
            bytes.extend(std::iter::repeat_n(7, len as usize));
        }
        // No aliases.
        bytes.extend(0_u32.to_le_bytes());
        bytes
    }

    /// All files of the model, by name.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let tokens: Vec<String> = (0..self.vocabulary).map(|n| format!("\"{n}\"")).collect();
        vec![
            (
                "config.json",
                br#"{"lang_ids": [1], "suppress_ids": [], "suppress_ids_begin": [220]}"#.to_vec(),
            ),
            (
                "preprocessor_config.json",
                format!("{{\"feature_size\": {}}}", self.mel_bands).into_bytes(),
            ),
            ("model.bin", self.weights()),
            ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec()),
            ("vocabulary.json", format!("[{}]", tokens.join(",")).into_bytes()),
        ]
    }

    /// Writes all files, but for those named, into a folder that is made for them.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn write(&self, folder: &Path, without: &[&str]) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let files = self.files();
        let mut wanted = files.iter().filter(|(name, _)| !without.contains(name));
        wanted.try_for_each(|(name, contents)| std::fs::write(folder.join(name), contents))
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u16 + 1).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}
