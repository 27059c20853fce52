use std::fmt;

use serde::{Deserialize, Serialize};

/// The Ollama release whose contract we keep: told to clients, and to registries, which refuse models to older ones.
pub const OLLAMA_VERSION: &str = "0.33.0";

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";

/// A model's name in a registry and in the store on disk: `[host/][namespace/]model[:tag]` (Ollama contract 1.2).
///
/// Equality is exact; look-up of what is stored goes by [`RegistryName::same_as`]. No part can be `..` or hold a separator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RegistryName {
    /// Registry host, with its port if it has one.
    pub host: String,
    /// Owner.
    pub namespace: String,
    /// Model.
    pub model: String,
    /// Tag.
    pub tag: String,
}

impl RegistryName {
    /// Parses a name, a `scheme://` before it is left out; `None` when it breaks the grammar.
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
        Self::from_parts(host, namespace, model, tag)
    }

    /// A name of four given parts; `None` when one breaks the grammar.
    pub fn from_parts(host: &str, namespace: &str, model: &str, tag: &str) -> Option<Self> {
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

    /// The same model, upper and lower case aside?
    pub fn same_as(&self, other: &Self) -> bool {
        let parts =
            |name: &Self| [&name.host, &name.namespace, &name.model, &name.tag].map(|part| part.to_ascii_lowercase());
        parts(self) == parts(other)
    }

    /// Is it of the registry that names without a host mean?
    pub fn is_default_host(&self) -> bool {
        self.host.eq_ignore_ascii_case(HOST)
    }
}

/// The shortest form: host and namespace left out when they are the defaults, always with the tag.
impl fmt::Display for RegistryName {
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
            ("..", None),
            ("x y", None),
            ("x:", None),
            ("é", None),
        ] {
            assert_eq!(
                RegistryName::parse(text).map(|name| name.to_string()).as_deref(),
                shown,
                "{text}"
            );
        }
        let name = RegistryName::parse("x").unwrap();
        assert_eq!(name.full(), "registry.ollama.ai/library/x:latest");
        assert!(RegistryName::parse(&"a".repeat(81)).is_none());
        assert!(name.same_as(&RegistryName::parse("X:Latest").unwrap()));
    }
}
