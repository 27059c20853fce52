//! The languages of Whisper: code and full English name, as its tokenizer has them.

use domain::RunnerError;

/// Code and name, in Whisper's own order.
#[rustfmt::skip]
const LANGUAGES: [(&str, &str); 100] = [
    ("en", "english"), ("zh", "chinese"), ("de", "german"), ("es", "spanish"), ("ru", "russian"),
    ("ko", "korean"), ("fr", "french"), ("ja", "japanese"), ("pt", "portuguese"), ("tr", "turkish"),
    ("pl", "polish"), ("ca", "catalan"), ("nl", "dutch"), ("ar", "arabic"), ("sv", "swedish"),
    ("it", "italian"), ("id", "indonesian"), ("hi", "hindi"), ("fi", "finnish"), ("vi", "vietnamese"),
    ("he", "hebrew"), ("uk", "ukrainian"), ("el", "greek"), ("ms", "malay"), ("cs", "czech"),
    ("ro", "romanian"), ("da", "danish"), ("hu", "hungarian"), ("ta", "tamil"), ("no", "norwegian"),
    ("th", "thai"), ("ur", "urdu"), ("hr", "croatian"), ("bg", "bulgarian"), ("lt", "lithuanian"),
    ("la", "latin"), ("mi", "maori"), ("ml", "malayalam"), ("cy", "welsh"), ("sk", "slovak"),
    ("te", "telugu"), ("fa", "persian"), ("lv", "latvian"), ("bn", "bengali"), ("sr", "serbian"),
    ("az", "azerbaijani"), ("sl", "slovenian"), ("kn", "kannada"), ("et", "estonian"), ("mk", "macedonian"),
    ("br", "breton"), ("eu", "basque"), ("is", "icelandic"), ("hy", "armenian"), ("ne", "nepali"),
    ("mn", "mongolian"), ("bs", "bosnian"), ("kk", "kazakh"), ("sq", "albanian"), ("sw", "swahili"),
    ("gl", "galician"), ("mr", "marathi"), ("pa", "punjabi"), ("si", "sinhala"), ("km", "khmer"),
    ("sn", "shona"), ("yo", "yoruba"), ("so", "somali"), ("af", "afrikaans"), ("oc", "occitan"),
    ("ka", "georgian"), ("be", "belarusian"), ("tg", "tajik"), ("sd", "sindhi"), ("gu", "gujarati"),
    ("am", "amharic"), ("yi", "yiddish"), ("lo", "lao"), ("uz", "uzbek"), ("fo", "faroese"),
    ("ht", "haitian creole"), ("ps", "pashto"), ("tk", "turkmen"), ("nn", "nynorsk"), ("mt", "maltese"),
    ("sa", "sanskrit"), ("lb", "luxembourgish"), ("my", "myanmar"), ("bo", "tibetan"), ("tl", "tagalog"),
    ("mg", "malagasy"), ("as", "assamese"), ("tt", "tatar"), ("haw", "hawaiian"), ("ln", "lingala"),
    ("ha", "hausa"), ("ba", "bashkir"), ("jw", "javanese"), ("su", "sundanese"), ("yue", "cantonese"),
];

/// Further names, and the codes that other standards use.
#[rustfmt::skip]
const ALIASES: [(&str, &str); 16] = [
    ("burmese", "my"), ("valencian", "ca"), ("flemish", "nl"), ("haitian", "ht"), ("letzeburgesch", "lb"),
    ("pushto", "ps"), ("panjabi", "pa"), ("moldavian", "ro"), ("moldovan", "ro"), ("sinhalese", "si"),
    ("castilian", "es"), ("mandarin", "zh"), ("jv", "jw"), ("nb", "no"), ("iw", "he"),
    ("fil", "tl"),
];

/// The code a client means; `Ok(None)`: it is to be detected (missing, empty, `auto`).
///
/// # Errors
/// `unsupported_language` with some codes, for what Whisper does not know.
pub(super) fn code(asked: &str, param: &str) -> Result<Option<&'static str>, RunnerError> {
    let lower = asked.trim().to_lowercase();
    if lower.is_empty() || lower == "auto" {
        return Ok(None);
    }
    // Regional forms: `en-US`, `zh_Hans_CN`.
    let base = lower.split(['-', '_']).next().unwrap_or(&lower);
    lookup(&lower).or_else(|| lookup(base)).map(Some).ok_or_else(|| {
        RunnerError::invalid(format!(
            "The language '{}' is not known. Use a code such as en, de, es, fr, ja or zh, or leave it out to have it detected.",
            asked.chars().take(40).collect::<String>()
        ))
        .code("unsupported_language")
        .param(param)
    })
}

fn lookup(word: &str) -> Option<&'static str> {
    let by_code = || LANGUAGES.iter().find(|(code, _)| *code == word);
    let by_name = || LANGUAGES.iter().find(|(_, name)| *name == word);
    by_code().or_else(by_name).map(|(code, _)| *code).or_else(|| {
        let (_, code) = ALIASES.iter().find(|(alias, _)| *alias == word)?;
        Some(*code)
    })
}

/// The full name of a code, as `verbose_json` shows it; the code itself for one that is not known.
pub fn language_name(code: &str) -> &str {
    LANGUAGES
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(code, |(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_names_and_regions() {
        for (asked, expected) in [
            ("en", Some("en")),
            ("EN", Some("en")),
            ("english", Some("en")),
            ("English ", Some("en")),
            ("en-US", Some("en")),
            ("zh_Hans_CN", Some("zh")),
            ("yue", Some("yue")),
            ("Haitian Creole", Some("ht")),
            ("Mandarin", Some("zh")),
            ("", None),
            ("auto", None),
            ("  ", None),
        ] {
            assert_eq!(code(asked, "language").unwrap(), expected, "{asked}");
        }
        for asked in ["xx", "klingon", "e", "en us", "-"] {
            let error = code(asked, "language").unwrap_err();
            assert_eq!(error.code.as_deref(), Some("unsupported_language"), "{asked}");
            assert_eq!(error.param.as_deref(), Some("language"));
        }
    }

    #[test]
    fn no_code_or_name_twice() {
        let mut seen = std::collections::HashSet::new();
        for (code, name) in LANGUAGES {
            assert!(seen.insert(code), "{code}");
            assert!(seen.insert(name), "{name}");
            assert_eq!(language_name(code), name);
        }
        for (alias, code) in ALIASES {
            assert!(seen.insert(alias), "{alias}");
            assert_ne!(language_name(code), code);
        }
    }
}
