use domain::chat::Message;
use domain::{ErrorKind, RunnerError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::json::to_vec;
use crate::openai::fields::invalid;

/// Most items of one page of `input_items`, and how many when the request does not say.
const MOST: usize = 100;
const USUAL: usize = 20;

/// What is kept of an answer besides the messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredResponse {
    /// The response object as it was sent.
    pub response: Value,
    /// The items it was asked with, ids included.
    pub input: Vec<Value>,
}

impl StoredResponse {
    /// With ids for the items that came without one.
    pub(super) fn new(response: Value, mut input: Vec<Value>, id: impl Fn(&str, usize) -> String) -> Self {
        for (i, item) in input.iter_mut().enumerate() {
            let Some(members) = item.as_object_mut() else { continue };
            let kind = members.get("type").and_then(Value::as_str).unwrap_or("message");
            let prefix = match kind {
                "function_call" => "fc",
                "function_call_output" => "fco",
                "reasoning" => "rs",
                _ => "msg",
            };
            if kind == "message" {
                members.entry("type").or_insert_with(|| "message".into());
                members.entry("status").or_insert_with(|| "completed".into());
                if let Some(Value::String(text)) = members.get("content") {
                    let part = if members.get("role").is_some_and(|role| role == "assistant") {
                        json!({"type": "output_text", "text": text, "annotations": []})
                    } else {
                        json!({"type": "input_text", "text": text})
                    };
                    members.insert("content".into(), json!([part]));
                }
            }
            if members.get("id").is_none_or(Value::is_null) {
                members.insert("id".into(), id(prefix, i).into());
            }
        }
        Self { response, input }
    }

    /// `GET /v1/responses/{id}`.
    pub fn body(&self) -> Vec<u8> {
        to_vec(&self.response)
    }

    /// `GET /v1/responses/{id}/input_items`.
    ///
    /// # Errors
    /// `InvalidRequest` for an `after` that is none of the items.
    pub fn input_items(&self, page: &Page) -> Result<Vec<u8>, RunnerError> {
        let mut items: Vec<&Value> = self.input.iter().collect();
        if !page.ascending {
            items.reverse();
        }
        if let Some(after) = &page.after {
            let at = items.iter().position(|item| item["id"] == **after);
            let at = at.ok_or_else(|| invalid("after", format!("There is no item '{after}'.")))?;
            items.drain(..=at);
        }
        let more = items.len() > page.limit;
        items.truncate(page.limit);
        let id = |item: Option<&&Value>| item.map(|item| item["id"].clone());
        Ok(to_vec(&json!({
            "object": "list",
            "data": items,
            "first_id": id(items.first()),
            "last_id": id(items.last()),
            "has_more": more,
        })))
    }

    /// The messages that the answer itself adds to the conversation.
    ///
    /// # Errors
    /// None for answers that we wrote.
    pub fn output_messages(&self) -> Result<Vec<Message>, RunnerError> {
        let output = self.response["output"].as_array().map(Vec::as_slice);
        super::input::messages(output.unwrap_or_default())
    }
}

/// Which items of a list are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    limit: usize,
    ascending: bool,
    after: Option<String>,
}

impl Page {
    /// From the values of the query string.
    ///
    /// # Errors
    /// `InvalidRequest` for values out of range.
    pub fn parse(limit: Option<&str>, order: Option<&str>, after: Option<String>) -> Result<Self, RunnerError> {
        let limit = match limit.map(str::parse) {
            None => USUAL,
            Some(Ok(limit @ 1..=MOST)) => limit,
            Some(_) => return Err(invalid("limit", "'limit' must be between 1 and 100")),
        };
        let ascending = match order {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(invalid("order", "'order' must be 'asc' or 'desc'")),
        };
        Ok(Self {
            limit,
            ascending,
            after,
        })
    }
}

/// The reply to `DELETE /v1/responses/{id}`.
pub fn deleted(id: &str) -> Vec<u8> {
    to_vec(&json!({"id": id, "object": "response", "deleted": true}))
}

/// There is no such response.
pub fn not_found(id: &str) -> RunnerError {
    RunnerError::new(ErrorKind::NotFound, format!("Response with id '{id}' not found."))
        .param("response_id")
        .code("response_not_found")
}

/// `previous_response_id` names nothing (LM Studio contract 4.5).
pub fn previous_not_found(id: &str) -> RunnerError {
    RunnerError::invalid(format!("Previous response with id '{id}' not found."))
        .param("previous_response_id")
        .code("previous_response_not_found")
}
