//! `/v1/embeddings` with `dimensions`: the engine knows only whole vectors, so they are cut here and brought back to length 1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::RunnerError;
use serde_json::{Value, json};

use super::fields::{invalid, wrong_type};
use crate::engine;
use crate::json::{to_vec, write_f32, write_str, write_u64};
use crate::peek::{Key, Peeked};

/// Vectors are to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Numbers to keep.
    dimensions: usize,
    /// `encoding_format` is `base64`.
    base64: bool,
}

impl Cut {
    /// `None`: the engine's answer passes as it is.
    ///
    /// # Errors
    /// `InvalidRequest` for anything but a positive whole number.
    pub fn of(peeked: &Peeked<'_>) -> Result<Option<Self>, RunnerError> {
        let Some(field) = peeked.get(Key::Dimensions) else {
            return Ok(None);
        };
        let dimensions = match field.as_i64() {
            Some(dimensions @ 1..) => dimensions.unsigned_abs() as usize,
            Some(_) => return Err(invalid("dimensions", "'dimensions' must be at least 1")),
            None => return Err(wrong_type("dimensions", "an integer")),
        };
        let format = peeked.get(Key::EncodingFormat).and_then(|format| format.as_str());
        Ok(Some(Self {
            dimensions,
            base64: format.as_deref() == Some("base64"),
        }))
    }

    /// The change to the body: the engine must answer in numbers.
    pub fn edit(self) -> Option<(Key, Vec<u8>)> {
        self.base64.then(|| (Key::EncodingFormat, b"\"float\"".to_vec()))
    }

    /// The engine's answer with cut vectors. `model`: the name that is repeated.
    ///
    /// # Errors
    /// `InvalidRequest` when the model's vectors are shorter; `EngineFailed` when the answer has another shape.
    pub fn reply(self, body: &[u8], model: &str) -> Result<Vec<u8>, RunnerError> {
        let found = engine::parse_embeddings(body)?;
        let width = found.vectors.iter().map(Vec::len).min().unwrap_or(self.dimensions);
        if self.dimensions > width {
            return Err(invalid(
                "dimensions",
                format!("'dimensions' may be at most {width} for this model"),
            ));
        }
        let mut out = Vec::with_capacity(64 + found.vectors.len() * self.dimensions * 12);
        out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
        for (i, vector) in found.vectors.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
            write_u64(i as u64, &mut out);
            out.extend_from_slice(b",\"embedding\":");
            self.vector(&vector[..self.dimensions], &mut out);
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"model\":");
        write_str(model, &mut out);
        out.extend_from_slice(b",\"usage\":");
        let usage: Value = json!({"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens});
        out.extend_from_slice(&to_vec(&usage));
        out.push(b'}');
        Ok(out)
    }

    fn vector(self, vector: &[f32], out: &mut Vec<u8>) {
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let scaled = vector.iter().map(|x| {
            if length > 0.0 {
                (f64::from(*x) / length) as f32
            } else {
                *x
            }
        });
        if self.base64 {
            let bytes: Vec<u8> = scaled.flat_map(f32::to_le_bytes).collect();
            write_str(&STANDARD.encode(bytes), out);
            return;
        }
        out.push(b'[');
        for (i, x) in scaled.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_f32(x, out);
        }
        out.push(b']');
    }
}
