//! Images in requests: only what the request itself carries.

use domain::RunnerError;
use domain::chat::Part;
use serde_json::Value;

use super::fields::invalid;

/// The refusal of an address that would have to be fetched: a way into the caller's network and disk (Ollama contract 7.2,
/// LM Studio contract 4.2; both texts, since clients look for either).
pub(super) fn remote(param: &str) -> RunnerError {
    invalid(
        param,
        "image URLs are not currently supported, please use base64 encoded data instead: 'url' field must be a base64 \
         encoded image",
    )
}

/// Refuses a value of any form in which an image stands as an address, and one that cannot be looked through.
pub(crate) fn check_addresses(raw: &[u8], param: &str) -> Result<(), RunnerError> {
    // The name of a member may be written with escapes.
    let nested = matches!(raw.first(), Some(b'{' | b'['));
    let contains = |needle: &[u8]| memchr::memmem::find(raw, needle).is_some();
    if !nested || !(contains(b"image_url") || contains(b"\\u")) {
        return Ok(());
    }
    let value: Value =
        serde_json::from_slice(raw).map_err(|error| invalid(param, format!("'{param}' cannot be read: {error}")))?;
    let mut left = vec![&value];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(members) => {
                let url = members.get("image_url").map(|image| image.get("url").unwrap_or(image));
                if url.and_then(Value::as_str).is_some_and(|url| !is_data(url)) {
                    return Err(remote(param));
                }
                left.extend(members.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    Ok(())
}

/// Is it a data URL?
pub(super) fn is_data(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// The image of a data URL.
pub(crate) fn image(url: &str, param: &str) -> Result<Part, RunnerError> {
    if !is_data(url) {
        return Err(remote(param));
    }
    let broken = || invalid(param, "'url' field must be a base64 encoded image");
    let (head, base64) = url[5..].split_once(',').ok_or_else(broken)?;
    let mime = head.strip_suffix(";base64").ok_or_else(broken)?;
    let mime = mime.split(';').next().unwrap_or_default().to_ascii_lowercase();
    if !(mime.is_empty() || mime.starts_with("image/")) {
        return Err(broken());
    }
    Ok(Part::Image {
        mime: if mime.is_empty() { "image/png".to_owned() } else { mime },
        base64: base64.to_owned(),
    })
}
