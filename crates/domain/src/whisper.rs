//! The converted Whisper models that have names of their own (audio contract 5): sizes, the repositories they stand for, and
//! the spellings that mean them.

/// A Whisper model in CTranslate2's form that a size names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownWhisper {
    /// `base`, `large-v3-turbo`, `distil-small.en`.
    pub size: &'static str,
    /// `owner/name` of the converted repository.
    pub repository: &'static str,
    /// Bytes to download, about: for people who choose.
    pub bytes: u64,
}

/// Names of OpenAI that mean whatever speech-to-text model there is.
const ANY_LISTENER: [&str; 4] = [
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-transcribe",
];
/// Names of OpenAI that mean whatever text-to-speech model there is.
const ANY_SPEAKER: [&str; 3] = ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"];
/// What may stand before a size.
const PREFIXES: [&str; 3] = ["openai/whisper-", "faster-whisper-", "whisper-"];
/// What is offered when nothing is there and a request does not say which: runs everywhere, knows all languages, translates.
const FIRST: &str = "base";

/// All of them, from small to large within a family.
pub const WHISPERS: [KnownWhisper; 17] = [
    of("tiny", "Systran/faster-whisper-tiny", 78),
    of("tiny.en", "Systran/faster-whisper-tiny.en", 78),
    of("base", "Systran/faster-whisper-base", 148),
    of("base.en", "Systran/faster-whisper-base.en", 148),
    of("small", "Systran/faster-whisper-small", 486),
    of("small.en", "Systran/faster-whisper-small.en", 486),
    of("medium", "Systran/faster-whisper-medium", 1530),
    of("medium.en", "Systran/faster-whisper-medium.en", 1530),
    of("large-v1", "Systran/faster-whisper-large-v1", 3090),
    of("large-v2", "Systran/faster-whisper-large-v2", 3090),
    of("large-v3", "Systran/faster-whisper-large-v3", 3091),
    of("large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1622),
    of("distil-small.en", "Systran/faster-distil-whisper-small.en", 336),
    of("distil-medium.en", "Systran/faster-distil-whisper-medium.en", 792),
    of("distil-large-v2", "Systran/faster-distil-whisper-large-v2", 1516),
    of("distil-large-v3", "Systran/faster-distil-whisper-large-v3", 1517),
    of("distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2", 1517),
];

const fn of(size: &'static str, repository: &'static str, megabytes: u64) -> KnownWhisper {
    KnownWhisper {
        size,
        repository,
        bytes: megabytes * 1_000_000,
    }
}

impl KnownWhisper {
    /// The model a name means: a size (`base`, `large`, `turbo`) with or without `whisper-`, `faster-whisper-` or
    /// `openai/whisper-` before it, or the repository. Any case; `:latest` after it is overlooked.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.trim();
        if name.len() > 100 {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(":latest").unwrap_or(&name);
        let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        let size = match rest.unwrap_or(name) {
            "large" => "large-v3",
            "turbo" => "large-v3-turbo",
            size => size,
        };
        WHISPERS
            .iter()
            .find(|known| known.size == size || known.repository.eq_ignore_ascii_case(name))
    }

    /// The model whose repository has this name, whoever owns the copy; a folder is often called so.
    pub fn of_folder(name: &str) -> Option<&'static Self> {
        let own = |known: &&Self| {
            let (_, own) = known.repository.split_once('/').unwrap_or_default();
            own.eq_ignore_ascii_case(name)
        };
        WHISPERS.iter().find(own).or_else(|| Self::named(name))
    }

    /// What to offer to somebody who has none and named none.
    pub fn first() -> &'static Self {
        WHISPERS
            .iter()
            .find(|known| known.size == FIRST)
            .unwrap_or(&WHISPERS[0])
    }

    /// Its key in the library: `whisper-base`.
    pub fn key(&self) -> String {
        format!("whisper-{}", self.size)
    }

    /// It writes English for speech of other languages. English-only ones have nothing to translate; distilled ones and the
    /// turbo run the task but answer in the language they hear (audio contract 2).
    pub fn translates(&self) -> bool {
        let english = self.size.strip_suffix(".en").is_some();
        !english && !self.size.starts_with("distil-") && !self.size.ends_with("turbo")
    }

    /// Its other names, most usual first, without the repository.
    pub fn names(&self) -> Vec<String> {
        let short = match self.size {
            "large-v3" => Some("large"),
            "large-v3-turbo" => Some("turbo"),
            _ => None,
        };
        let sizes = [Some(self.size), short];
        let spellings = ["", "whisper-", "faster-whisper-", "openai/whisper-"];
        spellings
            .iter()
            .flat_map(|prefix| sizes.iter().flatten().map(move |size| format!("{prefix}{size}")))
            .collect()
    }
}

/// Is this `owner/name` of a repository that is called like a converted Whisper? OpenAI's own are of another form.
pub fn is_converted(name: &str) -> bool {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= 96
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !text.starts_with('.')
            && !text.ends_with('.')
    };
    name.split_once('/').is_some_and(|(owner, own)| {
        is_name(owner)
            && is_name(own)
            && !owner.eq_ignore_ascii_case("openai")
            && own.to_ascii_lowercase().contains("whisper")
    })
}

/// Does a request with this model name leave the choice of the speech-to-text model to us? Empty: it named none.
pub fn is_any_listener(name: &str) -> bool {
    is_any(name, &ANY_LISTENER)
}

/// Does a request with this model name leave the choice of the text-to-speech model to us? Empty: it named none.
pub fn is_any_speaker(name: &str) -> bool {
    is_any(name, &ANY_SPEAKER)
}

fn is_any(name: &str, names: &[&str]) -> bool {
    let name = name.trim();
    name.is_empty() || names.iter().any(|any| any.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_contracts_table() {
        let repository = |name: &str| KnownWhisper::named(name).map(|known| known.repository);
        for (name, wanted) in [
            ("tiny", "Systran/faster-whisper-tiny"),
            ("base.en", "Systran/faster-whisper-base.en"),
            ("whisper-base", "Systran/faster-whisper-base"),
            ("Whisper-Base", "Systran/faster-whisper-base"),
            ("faster-whisper-medium", "Systran/faster-whisper-medium"),
            ("openai/whisper-small.en", "Systran/faster-whisper-small.en"),
            ("large", "Systran/faster-whisper-large-v3"),
            ("openai/whisper-large", "Systran/faster-whisper-large-v3"),
            ("turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
            ("whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
            ("distil-small.en", "Systran/faster-distil-whisper-small.en"),
            ("whisper-distil-large-v3", "Systran/faster-distil-whisper-large-v3"),
            ("distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2"),
            ("systran/FASTER-whisper-base", "Systran/faster-whisper-base"),
            (" base:latest ", "Systran/faster-whisper-base"),
        ] {
            assert_eq!(repository(name), Some(wanted), "{name}");
        }
        for name in [
            "",
            "whisper",
            "whisper-",
            "whisper-1",
            "whisper-whisper-base",
            "base2",
            "openai/base",
            "Systran/base",
            "tiny-whisper",
            "large-v4",
        ] {
            assert_eq!(repository(name), None, "{name}");
        }
        assert_eq!(KnownWhisper::named(&"base".repeat(50)), None);
    }

    #[test]
    fn every_name_leads_back() {
        for known in &WHISPERS {
            let all = known
                .names()
                .into_iter()
                .chain([known.key(), known.repository.to_owned()]);
            for name in all {
                assert_eq!(KnownWhisper::named(&name), Some(known), "{name}");
            }
            let (_, folder) = known.repository.split_once('/').unwrap();
            assert_eq!(KnownWhisper::of_folder(folder), Some(known));
        }
        assert_eq!(KnownWhisper::first().size, "base");
        let translating: Vec<&str> = WHISPERS.iter().filter(|w| w.translates()).map(|w| w.size).collect();
        assert_eq!(
            translating,
            ["tiny", "base", "small", "medium", "large-v1", "large-v2", "large-v3"]
        );
    }

    #[test]
    fn repositories_of_others() {
        for name in [
            "me/whisper-large-v3-ct2",
            "Systran/faster-distil-whisper-small.en",
            "a/Whisper",
        ] {
            assert!(is_converted(name), "{name}");
        }
        for name in [
            "whisper",
            "openai/whisper-x",
            "me/model",
            "me/whisper:q8_0",
            "hf.co/me/whisper",
            "../whisper",
            "me/whisper..",
            "/whisper",
            "me/",
        ] {
            assert!(!is_converted(name), "{name}");
        }
    }

    #[test]
    fn openais_names_leave_the_choice() {
        for name in ["", " ", "whisper-1", "WHISPER-1", "gpt-4o-transcribe", "gpt-transcribe"] {
            assert!(is_any_listener(name), "{name}");
        }
        assert!(!is_any_listener("whisper-base") && !is_any_listener("tts-1"));
        assert!(is_any_speaker("tts-1-hd") && is_any_speaker("") && !is_any_speaker("whisper-1"));
    }
}
