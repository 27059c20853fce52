//! The voice engines that are installed on request (audio contract 8): what they are, under which licences, and what of the
//! hub they need.

use serde::{Deserialize, Serialize};

/// A voice engine that is installed on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoicePack {
    /// Kokoro: one model with many voices.
    Kokoro,
    /// Piper: one model for each voice.
    Piper,
}

/// A voice of Piper's that is installed when none is named: in the public domain, middling in size.
const PIPER_VOICE: &str = "en_US-ljspeech-medium";

impl VoicePack {
    /// All of them, the recommended one first.
    pub const ALL: [Self; 2] = [Self::Kokoro, Self::Piper];

    /// Its key in the library.
    pub fn key(self) -> &'static str {
        match self {
            Self::Kokoro => "kokoro",
            Self::Piper => "piper",
        }
    }

    /// The one of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|pack| pack.key().eq_ignore_ascii_case(name.trim()))
    }

    /// Name for people.
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Kokoro => "Kokoro",
            Self::Piper => "Piper",
        }
    }

    /// What it is.
    pub fn description(self) -> &'static str {
        match self {
            Self::Kokoro => "Natural voices in eight languages, on any processor.",
            Self::Piper => "Quick voices in over thirty languages, one file each.",
        }
    }

    /// Under which licences it comes.
    pub fn licence(self) -> &'static str {
        match self {
            Self::Kokoro => {
                "Model and voices: Apache-2.0 (hexgrad/Kokoro-82M). Program: MIT (kokoro-onnx), with espeak-ng for phonemes: \
                 GPL-3.0-or-later."
            }
            Self::Piper => {
                "Program: GPL-3.0-or-later (OHF-Voice/piper1-gpl), with espeak-ng inside. Each voice has a licence of its own; \
                 some forbid commercial use."
            }
        }
    }

    /// The repository of the hub that has its files.
    pub fn repository(self) -> &'static str {
        match self {
            Self::Kokoro => "fastrtc/kokoro-onnx",
            Self::Piper => "rhasspy/piper-voices",
        }
    }

    /// The package of Python's index that speaks with it.
    pub fn package(self) -> &'static str {
        match self {
            Self::Kokoro => "kokoro-onnx",
            Self::Piper => "piper-tts",
        }
    }

    /// Bytes to download when no voice is named, about.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Kokoro => 354_000_000,
            Self::Piper => 63_500_000,
        }
    }

    /// The voice that is installed when none is named. Kokoro has all of its in one file.
    pub fn usual_voice(self) -> Option<&'static str> {
        match self {
            Self::Kokoro => None,
            Self::Piper => Some(PIPER_VOICE),
        }
    }

    /// The folder of the repository that holds the files of a voice, and their names; `None`: there can be no such voice.
    ///
    /// Piper's voices are called `<language>_<REGION>-<name>-<quality>` and lie in a folder for each of these parts.
    pub fn files(self, voice: Option<&str>) -> Option<(String, Vec<String>)> {
        match (self, voice) {
            (Self::Kokoro, None) => Some((String::new(), vec!["kokoro-v1.0.onnx".into(), "voices-v1.0.bin".into()])),
            (Self::Kokoro, Some(_)) => None,
            (Self::Piper, voice) => {
                let voice = voice.unwrap_or(PIPER_VOICE);
                let [locale, name, quality] = voice.split('-').collect::<Vec<_>>().try_into().ok()?;
                let (language, region) = locale.split_once('_')?;
                let plain = |part: &str| {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                };
                let all = [language, region, name, quality];
                (voice.len() <= 100 && all.into_iter().all(plain)).then(|| {
                    let folder = format!("{language}/{locale}/{name}/{quality}");
                    (folder, vec![format!("{voice}.onnx"), format!("{voice}.onnx.json")])
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_voices_choose_their_files() {
        let (folder, files) = VoicePack::Piper.files(Some("de_DE-thorsten_emotional-medium")).unwrap();
        assert_eq!(folder, "de/de_DE/thorsten_emotional/medium");
        assert_eq!(
            files,
            [
                "de_DE-thorsten_emotional-medium.onnx",
                "de_DE-thorsten_emotional-medium.onnx.json"
            ]
        );
        assert_eq!(VoicePack::Piper.files(None).unwrap().0, "en/en_US/ljspeech/medium");
        for wrong in [
            "",
            "x",
            "en_US-a",
            "en-a-b",
            "../x_y-a-b",
            "en_US-../..-low",
            "en_US-a-b/c",
            "en_US--low",
        ] {
            assert_eq!(VoicePack::Piper.files(Some(wrong)), None, "{wrong}");
        }
        assert_eq!(VoicePack::Kokoro.files(Some("af_heart")), None);
        assert_eq!(VoicePack::Kokoro.files(None).unwrap().1.len(), 2);
        assert_eq!(VoicePack::named(" Kokoro"), Some(VoicePack::Kokoro));
        assert_eq!(VoicePack::named("tts-1"), None);
    }
}
