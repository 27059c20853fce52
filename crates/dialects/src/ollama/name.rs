use std::fmt;

use domain::RunnerError;

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";

/// A model name `[host/][namespace/]model[:tag]` (contract 1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Registry host.
    pub host: String,
    /// Owner.
    pub namespace: String,
    /// Model.
    pub model: String,
    /// Tag.
    pub tag: String,
}

impl Name {
    /// Parses a name; `None` when it breaks the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let slash = text.rfind('/');
        let (path, tag) = match text.rfind(':') {
            Some(colon) if slash.is_none_or(|slash| colon > slash) => (&text[..colon], &text[colon + 1..]),
            _ => (text, TAG),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (host, namespace, model) = match parts.as_slice() {
            [model] => (HOST, NAMESPACE, *model),
            [namespace, model] => (HOST, *namespace, *model),
            [host, namespace, model] => (*host, *namespace, *model),
            _ => return None,
        };
        let valid =
            part(host, 350, "-_.:") && part(namespace, 80, "-_") && part(model, 80, "-_.") && part(tag, 80, "-_.");
        valid.then(|| Self {
            host: host.into(),
            namespace: namespace.into(),
            model: model.into(),
            tag: tag.into(),
        })
    }

    /// All four parts, as capability errors print them: `registry.ollama.ai/library/x:latest`.
    pub fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }
}

/// The shortest form: host and namespace left out when they are the defaults, always with the tag.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host != HOST {
            write!(f, "{}/", self.host)?;
        }
        if self.host != HOST || self.namespace != NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

fn part(text: &str, longest: usize, also: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    starts && text.len() <= longest && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

/// The name ready for the registry: without white space around it and without the source suffix `:local`.
///
/// # Errors
/// `InvalidRequest` for `:local` together with `:cloud`.
pub fn lookup_name(name: &str) -> Result<String, RunnerError> {
    let trimmed = name.trim();
    let Some(base) = trimmed.strip_suffix(":local") else {
        return Ok(trimmed.to_owned());
    };
    if base.ends_with(":cloud") || (base.contains(':') && base.ends_with("-cloud")) {
        return Err(RunnerError::invalid(format!(
            "use either :local or :cloud, not both: {trimmed:?}"
        )));
    }
    Ok(base.to_owned())
}

/// The full name of a name as asked, for capability errors; the name itself when it breaks the grammar.
pub(super) fn full_name(asked: &str) -> String {
    Name::parse(asked).map_or_else(|| asked.to_owned(), |name| name.full())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_and_display() {
        for (text, shown) in [
            ("llama3.2", Some("llama3.2:latest")),
            ("llama3.2:1B", Some("llama3.2:1B")),
            ("user/model:tag", Some("user/model:tag")),
            ("library/x", Some("x:latest")),
            ("hf.co/user/repo:Q4_K_M", Some("hf.co/user/repo:Q4_K_M")),
            ("localhost:5000/library/x", Some("localhost:5000/library/x:latest")),
            ("http://localhost:5000/a/x:y", Some("localhost:5000/a/x:y")),
            (" x ", Some("x:latest")),
            ("", None),
            (":tag", None),
            ("a/b/c/d", None),
            ("na.me/x", None),
            ("-x", None),
            ("x y", None),
            ("x:", None),
            ("é", None),
        ] {
            assert_eq!(
                Name::parse(text).map(|name| name.to_string()).as_deref(),
                shown,
                "{text}"
            );
        }
        assert_eq!(full_name("x"), "registry.ollama.ai/library/x:latest");
        assert!(Name::parse(&"a".repeat(81)).is_none());
    }

    #[test]
    fn source_suffixes() {
        assert_eq!(lookup_name(" x:local ").unwrap(), "x");
        assert_eq!(lookup_name("x:cloud").unwrap(), "x:cloud");
        assert_eq!(
            lookup_name("x:cloud:local").unwrap_err().message,
            "use either :local or :cloud, not both: \"x:cloud:local\""
        );
    }
}
