//! What a stored model adds to a request: its system prompt, its messages, its parameters (contract 4.2, 5).

use domain::chat::{ChatRequest, Message, Role};
use domain::{ModelProfile, RunnerError};
use serde_json::{Map, Value};

use super::options;

/// Parameters that decide about the start of the engine. They are launch options of the model's entry already, where the
/// user's configuration can overrule them.
const LAUNCH: [&str; 6] = ["num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap"];

/// The request's options over the stored ones; null counts as absent.
pub(super) fn merged(stored: &ModelProfile, asked: &Map<String, Value>) -> Map<String, Value> {
    let mut all: Map<String, Value> = runtime(stored).collect();
    for (name, value) in asked.iter().filter(|(_, value)| !value.is_null()) {
        all.insert(name.clone(), value.clone());
    }
    all
}

fn runtime(stored: &ModelProfile) -> impl Iterator<Item = (String, Value)> {
    stored
        .parameters
        .iter()
        .filter(|(name, _)| !LAUNCH.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
}

/// The stored messages go before the request's, and before both a system prompt: the request's if it begins with one, else
/// the stored one. (Ollama puts the request's after the stored messages, where many templates refuse it.)
pub(super) fn with_messages(stored: &ModelProfile, mut asked: Vec<Message>) -> Vec<Message> {
    let own = asked.iter().take_while(|message| message.role == Role::System).count();
    let rest = asked.split_off(own);
    let system = stored.system.as_ref().filter(|_| own == 0);
    asked
        .into_iter()
        .chain(system.map(|text| Message::text(Role::System, text)))
        .chain(stored.messages.iter().cloned())
        .chain(rest)
        .collect()
}

/// The same for chats of other dialects: what a request leaves open comes from the stored model.
///
/// # Errors
/// `InvalidRequest` when a stored parameter has a wrong type.
pub fn apply_profile(stored: &ModelProfile, request: &mut ChatRequest) -> Result<(), RunnerError> {
    request.messages = with_messages(stored, std::mem::take(&mut request.messages));
    let parameters: Map<String, Value> = runtime(stored).collect();
    if parameters.is_empty() {
        return Ok(());
    }
    let (stored, _) = options::parse_given(&parameters)?;
    let own = &mut request.sampling;
    own.max_tokens = own.max_tokens.or(stored.max_tokens);
    own.seed = own.seed.or(stored.seed);
    if own.stop.is_empty() {
        own.stop = stored.stop;
    }
    for (name, value) in stored.fields {
        own.fields.entry(name).or_insert(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile() -> ModelProfile {
        ModelProfile {
            system: Some("Be brief.".into()),
            parameters: json!({"temperature": 0.1, "stop": ["x"], "num_ctx": 99, "seed": 7})
                .as_object()
                .cloned()
                .unwrap_or_default(),
            messages: vec![Message::text(Role::User, "hi"), Message::text(Role::Assistant, "ho")],
            ..ModelProfile::default()
        }
    }

    #[test]
    fn stored_messages_and_system_go_first() {
        let roles = |asked: Vec<Message>| -> Vec<Role> {
            with_messages(&profile(), asked).into_iter().map(|m| m.role).collect()
        };
        use Role::{Assistant, System, User};
        assert_eq!(roles(vec![Message::text(User, "q")]), [System, User, Assistant, User]);
        assert_eq!(
            roles(vec![Message::text(System, "mine"), Message::text(User, "q")]),
            [System, User, Assistant, User]
        );
    }

    #[test]
    fn the_requests_options_win_and_launch_options_stay_with_the_launch() {
        let asked = json!({"temperature": 0.9, "seed": null});
        assert_eq!(
            Value::Object(merged(&profile(), asked.as_object().unwrap())),
            json!({"temperature": 0.9, "stop": ["x"], "seed": 7})
        );
    }

    #[test]
    fn other_dialects_get_only_what_is_stored() {
        let mut request = ChatRequest {
            messages: vec![Message::text(Role::User, "q")],
            ..ChatRequest::default()
        };
        request.sampling.seed = Some(1);
        apply_profile(&profile(), &mut request).unwrap();
        assert_eq!(request.messages.len(), 4);
        assert_eq!((request.sampling.seed, request.sampling.stop.len()), (Some(1), 1));
        assert_eq!(Value::Object(request.sampling.fields), json!({"temperature": 0.1}));
    }
}
