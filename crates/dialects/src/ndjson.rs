//! Newline-delimited JSON.
use serde::Serialize;
/// Appends one compact line.
pub fn write_line<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    out.extend(crate::json::to_vec(value));
    out.push(b'\n');
}
