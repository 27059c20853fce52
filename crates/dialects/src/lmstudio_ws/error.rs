//! Error objects (contract 10.7).

use domain::{ErrorKind, RunnerError};
use serde_json::{Map, Value, json};

use super::{Domain, Query};

/// Most names in a sample of loaded models.
const SAMPLE: usize = 10;

/// An error as both libraries read it: `displayData.code` selects the class of exception.
#[derive(Debug, Clone, PartialEq)]
pub struct WireError(Map<String, Value>);

impl WireError {
    /// An error of words only.
    pub fn new(title: impl Into<String>) -> Self {
        let title = title.into();
        let mut fields = Map::new();
        fields.insert("title".into(), title.as_str().into());
        fields.insert("rootTitle".into(), title.into());
        Self(fields)
    }

    fn displayed(title: impl Into<String>, display: Value) -> Self {
        let mut error = Self::new(title);
        error.0.insert("displayData".into(), display);
        error
    }

    /// Adds what to do next.
    #[must_use]
    pub fn suggestion(mut self, suggestion: &str) -> Self {
        self.0.insert("suggestion".into(), suggestion.into());
        self
    }

    /// The object.
    pub fn value(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The first line.
    pub fn title(&self) -> &str {
        self.0.get("title").and_then(Value::as_str).unwrap_or_default()
    }

    /// Nothing loaded fits, or nothing downloaded has this name. `loaded`: identifiers of what is loaded.
    pub fn no_model(query: &Query, loaded: &[String]) -> Self {
        let what = query
            .identifier
            .as_deref()
            .or(query.path.as_deref())
            .map_or_else(|| "the query".to_owned(), |name| format!("'{name}'"));
        let error = Self::displayed(
            format!("No model found that fits {what}."),
            json!({
                "code": "generic.noModelMatchingQuery",
                "query": query,
                "loadedModelsSample": loaded.iter().take(SAMPLE).collect::<Vec<_>>(),
                "totalLoadedModels": loaded.len(),
            }),
        );
        error.suggestion("Load the model first, or see the list of downloaded models.")
    }

    /// There are no presets here, so none fits.
    pub fn no_preset(asked: &str) -> Self {
        Self::displayed(
            format!("Preset '{asked}' was not found."),
            json!({
                "code": "generic.presetNotFound",
                "specifiedFuzzyPresetIdentifier": asked,
                "availablePresetsSample": [],
                "totalAvailablePresets": 0,
            }),
        )
    }

    /// An instance reference of a load that is over.
    pub fn unloaded() -> Self {
        Self::displayed(
            "This model has been unloaded.",
            json!({"code": "generic.specificModelUnloaded"}),
        )
    }

    /// The name is a model of the other namespace.
    pub fn domain_mismatch(path: &str, actual: Domain, expected: Domain) -> Self {
        Self::displayed(
            format!(
                "'{path}' is of the type {}, not {}.",
                actual.as_str(),
                expected.as_str()
            ),
            json!({
                "code": "generic.domainMismatch",
                "path": path,
                "actualDomain": actual.as_str(),
                "expectedDomain": expected.as_str(),
            }),
        )
    }

    /// An endpoint this server does not have.
    pub fn unknown_endpoint(endpoint: &str) -> Self {
        Self::new(format!("Unknown endpoint {endpoint}"))
    }

    /// An endpoint that exists in LM Studio and is not offered here.
    pub fn not_supported(endpoint: &str) -> Self {
        Self::new(format!("{endpoint} is not supported by LlamaRunner."))
    }

    /// A parameter that does not fit its endpoint.
    pub fn bad_parameter(endpoint: &str, why: &str) -> Self {
        Self::new(format!("The parameter of {endpoint} is not valid: {why}"))
    }
}

impl From<RunnerError> for WireError {
    fn from(error: RunnerError) -> Self {
        if error.kind == ErrorKind::ModelNotFound {
            let query = Query {
                identifier: error.model.clone(),
                ..Query::default()
            };
            return Self::no_model(&query, &[]);
        }
        // Words alone: whatever is added makes Python break the message into lines, and its own suite looks for one line.
        Self::new(error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_errors_hold_every_required_field() {
        let query = Query {
            identifier: Some("x".into()),
            ..Query::default()
        };
        let error = WireError::no_model(&query, &["a".into(), "b".into()]);
        let display = &error.value()["displayData"];
        assert_eq!(display["query"], json!({"identifier": "x"}));
        assert_eq!(display["loadedModelsSample"], json!(["a", "b"]));
        assert_eq!(display["totalLoadedModels"], 2);
        assert_eq!(error.value()["title"], error.value()["rootTitle"]);
        let from = WireError::from(RunnerError::model_not_found("y"));
        assert_eq!(from.value()["displayData"]["code"], "generic.noModelMatchingQuery");
        let from = WireError::from(RunnerError::invalid("no").code("c"));
        assert_eq!(
            Value::Object(from.value().clone()),
            json!({"title": "no", "rootTitle": "no"})
        );
    }
}
