use domain::RunnerError;
use serde_json::json;

use crate::json::to_vec;
use crate::openai::error::error_value;
use crate::{StreamForm, sse};

/// A stream of `/v1/responses` around its events. One that fails before `response.created` holds the API's `error` event.
pub struct ResponseForm;

impl StreamForm for ResponseForm {
    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        let value = error_value(error);
        let event = json!({
            "type": "error",
            "code": value["code"],
            "message": value["message"],
            "param": value["param"],
            "sequence_number": 0,
        });
        sse::write_event("error", &to_vec(&event), out);
    }
}
