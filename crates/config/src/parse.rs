use serde_json::Value;
use serde_path_to_error::Segment;

use crate::document::{Document, dotted, merge, set_path};
use crate::error::{ConfigError, Place, Problem};
use crate::overrides::Overrides;
use crate::positions::pointer;
use crate::section::{CONFIG_VERSION, Config};
use crate::unknown::unknown_keys;
use crate::validate::{EngineRules, validate};

/// An accepted configuration, and what the user should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The settings in effect.
    pub config: Config,
    /// Sentences about settings that are unknown or have no effect.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the text of a `config.json`: file over defaults, nothing else.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with file, line, column and field of every problem.
    pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
        Self::parse_with("config.json", text, &Overrides::default(), &EngineRules::default())
    }

    /// Reads a text under a name for messages, with what the environment and command line say laid over it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the place of every problem.
    pub fn parse_with(
        file: &str,
        text: &str,
        overrides: &Overrides,
        rules: &EngineRules,
    ) -> Result<Parsed, ConfigError> {
        build(&Document::read(file, text)?, overrides, rules)
    }
}

/// Lays defaults, file and overrides over each other, types and validates the result.
pub(crate) fn build(document: &Document, overrides: &Overrides, rules: &EngineRules) -> Result<Parsed, ConfigError> {
    let mut merged = defaults();
    merge(&mut merged, &document.value);
    for patch in &overrides.patches {
        set_path(&mut merged, &patch.path, Some(patch.value.clone()));
    }
    let mut warnings = overrides.warnings.clone();
    for unknown in unknown_keys(&merged) {
        let place = place(document, overrides, &unknown.pointer, Aim::Key);
        let line = place
            .position
            .map_or(String::new(), |(line, _)| format!(" line {line}"));
        let hint = unknown
            .nearest
            .map_or(String::new(), |name| format!(" Did you mean \"{name}\"?"));
        warnings.push(format!(
            "{}{line}: \"{}\" is not a setting.{hint}",
            place.file, unknown.key
        ));
    }
    let config: Config = serde_path_to_error::deserialize(merged).map_err(|error| {
        let path: Vec<String> = error.path().iter().filter_map(segment).collect();
        ConfigError::Invalid(vec![Problem {
            place: place(document, overrides, &pointer(&path), Aim::Value),
            message: error.inner().to_string(),
        }])
    })?;
    let problems: Vec<Problem> = validate(&config, rules)
        .into_iter()
        .map(|(path, message)| Problem {
            place: place(document, overrides, &pointer(&path), Aim::Value),
            message,
        })
        .collect();
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    if config.config_version > CONFIG_VERSION {
        warnings.push(format!(
            "{}: the file was written by a newer version (form {}, this program knows {CONFIG_VERSION}); settings it does not know are kept.",
            document.file, config.config_version
        ));
    }
    Ok(Parsed { config, warnings })
}

fn defaults() -> Value {
    serde_json::to_value(Config::default()).unwrap_or_default()
}

fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }
}

#[derive(Clone, Copy)]
enum Aim {
    Key,
    Value,
}

/// Where a setting was made: by a flag or variable if one set it, else in the file.
fn place(document: &Document, overrides: &Overrides, pointer: &str, aim: Aim) -> Place {
    let field = dotted(pointer);
    if let Some(source) = overrides.source_of(pointer) {
        return Place {
            file: source.to_owned(),
            position: None,
            field,
        };
    }
    let position = match aim {
        Aim::Key => document.positions.key(&document.text, pointer),
        Aim::Value => document.positions.value(&document.text, pointer),
    };
    Place {
        file: document.file.clone(),
        position,
        field,
    }
}
