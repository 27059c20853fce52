//! Bodies of the store routes: pull, push, copy, delete, create (contract 3.4 to 3.8).

use domain::{RegistryName, RunnerError};
use serde_json::{Map, Value};

use super::error::{Route, unknown_model};
use super::fields::Fields;
use super::{message, options};

/// Types a model can be quantized to (contract 3.6).
const QUANTIZATIONS: [&str; 5] = ["F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0"];

/// A parsed `/api/pull` or `/api/push` body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferCall {
    /// `model` (or `name`) as written.
    pub model: String,
    /// `insecure`: plain HTTP is allowed.
    pub insecure: bool,
    /// `stream`, true when absent.
    pub stream: bool,
}

impl TransferCall {
    /// Parses `/api/pull`. A badly formed name is refused here.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse_pull(body: &[u8]) -> Result<Self, RunnerError> {
        let call = Self::parse(Fields::parse(body, "PullRequest")?)?;
        check_name(&call.model, Route::Pull)?;
        Ok(call)
    }

    /// Parses `/api/push`. Only a missing name is refused here; a bad one is an error of the stream (contract 1.2).
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse_push(body: &[u8]) -> Result<Self, RunnerError> {
        let call = Self::parse(Fields::parse(body, "PushRequest")?)?;
        if call.model.trim().is_empty() {
            return Err(unknown_model("", Route::Push));
        }
        Ok(call)
    }

    fn parse(mut fields: Fields) -> Result<Self, RunnerError> {
        Ok(Self {
            model: fields.model()?.trim().to_owned(),
            insecure: fields.bool("insecure")?.unwrap_or(false),
            stream: fields.bool("stream")?.unwrap_or(true),
        })
    }
}

/// A parsed `/api/copy` body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCall {
    /// The model as written.
    pub source: String,
    /// The new name.
    pub destination: RegistryName,
}

impl CopyCall {
    /// Parses the body.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "CopyRequest")?;
        let source = fields.string("source")?.unwrap_or_default();
        let destination = fields.string("destination")?.unwrap_or_default();
        check_name(&source, Route::Copy)?;
        let destination = RegistryName::parse(&destination).ok_or_else(|| {
            RunnerError::invalid(format!("destination {destination:?} is invalid")).param("destination")
        })?;
        Ok(Self { source, destination })
    }
}

/// A parsed `/api/delete` body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteCall {
    /// The model as written.
    pub model: String,
    /// The same as a name.
    pub name: RegistryName,
}

impl DeleteCall {
    /// Parses the body.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let model = Fields::parse(body, "DeleteRequest")?.model()?;
        let name = check_name(&model, Route::Delete)?;
        Ok(Self { model, name })
    }
}

fn check_name(name: &str, route: Route) -> Result<RegistryName, RunnerError> {
    RegistryName::parse(name).ok_or_else(|| unknown_model(name, route))
}

/// A parsed and checked `/api/create` body.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateCall {
    /// The name to give.
    pub name: RegistryName,
    /// `stream`, true when absent.
    pub stream: bool,
    /// Where the weights come from.
    pub base: CreateBase,
    /// Digest texts of adapters.
    pub adapters: Vec<CreateFile>,
    /// `template`.
    pub template: Option<String>,
    /// `license` texts.
    pub license: Vec<String>,
    /// `system`.
    pub system: Option<String>,
    /// `parameters`, merged over those of the base.
    pub parameters: Map<String, Value>,
    /// `messages` as they are stored, replacing those of the base; empty: keep them.
    pub messages: Vec<Value>,
    /// `quantize`, in upper case.
    pub quantize: Option<String>,
}

/// What a model is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateBase {
    /// Another model, as written.
    From(String),
    /// Uploaded files.
    Files(Vec<CreateFile>),
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateFile {
    /// Its name at the caller, a relative path.
    pub name: String,
    /// 64 hex digits.
    pub sha256: String,
}

impl CreateCall {
    /// Parses the body.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "CreateRequest")?;
        let model = fields.model()?;
        let stream = fields.bool("stream")?.unwrap_or(true);
        let name = check_name(&model, Route::Create)?;
        let quantize = match fields.text("quantize")? {
            None => fields.text("quantization")?,
            given => given,
        };
        let quantize = quantize.map(|kind| kind.to_uppercase());
        if let Some(kind) = &quantize
            && !QUANTIZATIONS.contains(&kind.as_str())
        {
            return Err(RunnerError::invalid(format!(
                "unsupported quantization type {kind} - supported types are {}",
                QUANTIZATIONS.join(", ")
            ))
            .param("quantize"));
        }
        if fields.text("remote_host")?.is_some() {
            return Err(RunnerError::invalid("remote models are not supported").param("remote_host"));
        }
        let uploaded = files(&mut fields, "files")?;
        let adapters = files(&mut fields, "adapters")?;
        if adapters.len() > 1 {
            return Err(RunnerError::invalid("only one adapter is currently supported").param("adapters"));
        }
        let base = match (fields.text("from")?, uploaded.is_empty()) {
            (Some(from), _) => CreateBase::From(from),
            (None, false) => CreateBase::Files(uploaded),
            (None, true) => return Err(RunnerError::invalid("neither 'from' or 'files' was specified")),
        };
        let template = fields.text("template")?;
        if let Some(template) = &template {
            check_template(template)
                .map_err(|fault| RunnerError::invalid(format!("template error: {fault}")).param("template"))?;
        }
        let license = license(&mut fields)?;
        let system = fields.text("system")?;
        let parameters = fields.object("parameters")?;
        options::parse(&parameters, false)?;
        let messages = fields.list("messages", "[]api.Message")?;
        message::parse_all(messages.clone())?;
        Ok(Self {
            name,
            stream,
            base,
            adapters,
            template,
            license,
            system,
            parameters,
            messages,
            quantize,
        })
    }
}

/// A map of file names to digests.
fn files(fields: &mut Fields, name: &str) -> Result<Vec<CreateFile>, RunnerError> {
    let members = fields.object(name)?;
    members
        .into_iter()
        .map(|(file, digest)| {
            let Value::String(digest) = digest else {
                return Err(fields.mismatch(name, &digest, "string"));
            };
            if !is_relative(&file) {
                return Err(RunnerError::invalid("file path must be relative").param(name));
            }
            let sha256 = digest_hex(&digest).ok_or_else(|| invalid_digest().param(name))?;
            Ok(CreateFile { name: file, sha256 })
        })
        .collect()
}

/// `sha256:` or `sha256-` and 64 hex digits; the digits in lower case (contract 3.5).
pub fn digest_hex(text: &str) -> Option<String> {
    let hex = text
        .strip_prefix("sha256")
        .and_then(|rest| rest.strip_prefix([':', '-']))?;
    (hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| hex.to_ascii_lowercase())
}

/// The 400 for anything that is no digest.
pub fn invalid_digest() -> RunnerError {
    RunnerError::invalid("invalid digest format")
}

fn is_relative(path: &str) -> bool {
    let windows = path.as_bytes().get(1) == Some(&b':') || path.contains('\\');
    !path.is_empty()
        && !path.starts_with('/')
        && !windows
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn license(fields: &mut Fields) -> Result<Vec<String>, RunnerError> {
    let unknown = || RunnerError::invalid("license must be a string or a list of strings").param("license");
    match fields.take("license") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(unknown()),
            })
            .collect(),
        Some(_) => Err(unknown()),
    }
}

/// Finds what would keep a template from being one at all: an action that is not closed, or blocks that do not match. The
/// template is stored, not run: the engine renders the one inside the weights, or this one if it is in the engine's own
/// language, which is not looked into here.
fn check_template(text: &str) -> Result<(), String> {
    if text.contains("{%") {
        return Ok(());
    }
    let mut blocks: Vec<&str> = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(start) = rest.find("{{") {
        let (before, action) = rest.split_at(start);
        line += before.matches('\n').count();
        let Some(end) = action.find("}}") else {
            return Err(format!("template: :{line}: unclosed action"));
        };
        let (action, after) = action.split_at(end);
        let words = action.trim_start_matches("{{").trim_start_matches('-').trim();
        match words.split([' ', '\t', '\n', '-']).next().unwrap_or_default() {
            word @ ("if" | "range" | "with" | "block" | "define") => blocks.push(word),
            "end" if blocks.pop().is_none() => return Err(format!("template: :{line}: unexpected {{{{end}}}}")),
            "else" if blocks.is_empty() => return Err(format!("template: :{line}: unexpected {{{{else}}}}")),
            _ => {}
        }
        line += action.matches('\n').count();
        rest = after.get(2..).unwrap_or_default();
    }
    if blocks.is_empty() {
        Ok(())
    } else {
        Err(format!("template: :{line}: unexpected EOF"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(json: &str) -> Result<CreateCall, String> {
        CreateCall::parse(json.as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn creations() {
        let digest = format!("sha256:{}", "aB".repeat(32));
        let call = create(&format!(
            r#"{{"name":"me/x","files":{{"m.gguf":"{digest}"}},"license":["a","b"],"quantize":"q8_0","stream":false}}"#
        ))
        .unwrap();
        assert_eq!(call.name.to_string(), "me/x:latest");
        assert_eq!(
            call.base,
            CreateBase::Files(vec![CreateFile {
                name: "m.gguf".into(),
                sha256: "ab".repeat(32)
            }])
        );
        assert_eq!(call.quantize.as_deref(), Some("Q8_0"));
        assert!(!call.stream);
        assert_eq!(call.license, ["a", "b"]);
        for (body, words) in [
            ("{}", "invalid model name"),
            (r#"{"model":"a b"}"#, "invalid model name"),
            (r#"{"model":"x"}"#, "neither 'from' or 'files' was specified"),
            (
                r#"{"model":"x","from":null,"files":{}}"#,
                "neither 'from' or 'files' was specified",
            ),
            (r#"{"model":"x","files":{"a":"b"}}"#, "invalid digest format"),
            (r#"{"model":"x","files":{"/a":"b"}}"#, "file path must be relative"),
            (
                r#"{"model":"x","files":{"a/../../b":"b"}}"#,
                "file path must be relative",
            ),
            (r#"{"model":"x","files":{"C:\\b":"b"}}"#, "file path must be relative"),
            (
                r#"{"model":"x","from":"y","quantize":"Q9"}"#,
                "unsupported quantization type Q9 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0",
            ),
            (
                r#"{"model":"x","from":"y","template":"{{ if }}"}"#,
                "template error: template: :1: unexpected EOF",
            ),
            (
                r#"{"model":"x","from":"y","template":"a\n{{ .P"}"#,
                "template error: template: :2: unclosed action",
            ),
            (
                r#"{"model":"x","from":"y","template":"{{- end }}"}"#,
                "template error: template: :1: unexpected {{end}}",
            ),
            (
                r#"{"model":"x","from":"y","parameters":{"num_ctx":"a"}}"#,
                "option \"num_ctx\" must be of type integer",
            ),
            (
                r#"{"model":"x","from":"y","license":1}"#,
                "license must be a string or a list of strings",
            ),
            (
                r#"{"model":"x","from":"y","messages":[{"role":"robot"}]}"#,
                "invalid role: robot, must be one of [system user assistant tool]",
            ),
        ] {
            assert_eq!(create(body).unwrap_err(), words, "{body}");
        }
        let two = format!(r#"{{"model":"x","from":"y","adapters":{{"a":"{digest}","b":"{digest}"}}}}"#);
        assert_eq!(create(&two).unwrap_err(), "only one adapter is currently supported");
        assert!(
            create(r#"{"model":"x","from":"y","template":"{{ if .System }}a{{ else }}b{{ end }}{{/* c */}}"}"#).is_ok()
        );
    }

    #[test]
    fn names_per_route() {
        let pull = |json: &str| TransferCall::parse_pull(json.as_bytes()).map_err(|error| error.message);
        assert_eq!(pull("{}").unwrap_err(), "invalid model name");
        assert_eq!(pull(r#"{"name":" x "}"#).unwrap().model, "x");
        let push = |json: &str| TransferCall::parse_push(json.as_bytes()).map_err(|error| error.message);
        assert_eq!(push(r#"{"model":""}"#).unwrap_err(), "model is required");
        assert!(push(r#"{"model":"a b"}"#).is_ok());
        let copy = |json: &str| CopyCall::parse(json.as_bytes()).map_err(|error| error.message);
        assert_eq!(copy("{}").unwrap_err(), "source \"\" is invalid");
        assert_eq!(
            copy(r#"{"source":"a","destination":"../x"}"#).unwrap_err(),
            "destination \"../x\" is invalid"
        );
        let delete = |json: &str| DeleteCall::parse(json.as_bytes()).map_err(|error| error.message);
        assert_eq!(delete("{}").unwrap_err(), "model is required");
        assert_eq!(delete(r#"{"name":"a b"}"#).unwrap_err(), "name \"a b\" is invalid");
        assert_eq!(delete(r#"{"name":"x"}"#).unwrap().name.to_string(), "x:latest");
    }

    #[test]
    fn digests_are_exactly_that() {
        let hex = "0".repeat(64);
        assert_eq!(digest_hex(&format!("sha256:{hex}")), Some(hex.clone()));
        assert_eq!(digest_hex(&format!("sha256-{hex}")), Some(hex.clone()));
        for text in [
            hex.clone(),
            format!("sha256:{hex}0"),
            "sha256:../x".into(),
            format!("sha512:{hex}"),
        ] {
            assert_eq!(digest_hex(&text), None);
        }
    }
}
