//! Images in forms that the engine does not read (WebP, GIF) become PNG (LM Studio contract 4.2, 14). Other forms pass
//! untouched; whether they are sound is the engine's to say.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use domain::RunnerError;
use domain::chat::{ChatRequest, Part};
use image::{ImageFormat, ImageReader, Limits};
use serde_json::Value;

/// Longest side, in pixels.
const MAX_SIDE: u32 = 16_384;
/// Memory one picture may take while it is decoded, in bytes.
const MAX_MEMORY: u64 = 256 << 20;

/// Does a chat hold an image that [`fit`] would change? Decoding takes long enough to belong on a thread that may block.
pub fn needs_fit(request: &ChatRequest) -> bool {
    parts(request).any(|part| matches!(part, Part::Image { base64, .. } if format(base64).is_some()))
}

/// Makes every image of a chat one that the engine reads.
///
/// # Errors
/// `InvalidRequest` when an image cannot be decoded or is too large.
pub fn fit(request: &mut ChatRequest) -> Result<(), RunnerError> {
    let all = request.messages.iter_mut().flat_map(|message| &mut message.parts);
    for part in all {
        if let Part::Image { mime, base64 } = part
            && let Some(png) = to_png(base64)?
        {
            "image/png".clone_into(mime);
            *base64 = png;
        }
    }
    Ok(())
}

/// A WebP or GIF image (the first picture of a moving one) as PNG, both in base64; `None`: it is neither.
///
/// # Errors
/// As [`fit`].
pub fn to_png(base64: &str) -> Result<Option<String>, RunnerError> {
    let Some(format) = format(base64) else { return Ok(None) };
    let unreadable = || {
        RunnerError::invalid("The image cannot be read: it is damaged or larger than 16384 × 16384 pixels.")
            .code("invalid_image")
    };
    let text: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD
        .decode(&text)
        .or_else(|_| STANDARD_NO_PAD.decode(&text))
        .map_err(|_| unreadable())?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let picture = reader.decode().map_err(|_| unreadable())?;
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(|_| unreadable())?;
    Ok(Some(STANDARD.encode(png.get_ref())))
}

/// Does the body of an OpenAI chat hold such an image? A look for the first letters of both forms in base64.
pub fn body_needs_fit(body: &[u8]) -> bool {
    [b";base64,R0lGOD".as_slice(), b";base64,UklGR"]
        .iter()
        .any(|start| memchr::memmem::find(body, start).is_some())
}

/// The body of an OpenAI chat with every such image as PNG; a body that is no JSON comes back as it is.
///
/// # Errors
/// As [`fit`].
pub fn fit_body(body: &[u8]) -> Result<Vec<u8>, RunnerError> {
    let Ok(mut whole) = serde_json::from_slice::<Value>(body) else {
        return Ok(body.to_vec());
    };
    let messages = whole.get_mut("messages").and_then(Value::as_array_mut);
    let parts = messages
        .into_iter()
        .flatten()
        .filter_map(|message| message.get_mut("content")?.as_array_mut())
        .flatten();
    for part in parts {
        let Some(image) = part.get_mut("image_url") else {
            continue;
        };
        // Some clients write the address alone.
        let url = if image.is_object() {
            image.get_mut("url")
        } else {
            Some(image)
        };
        let Some(Value::String(url)) = url else { continue };
        if let Some((_, base64)) = url.split_once(";base64,")
            && let Some(png) = to_png(base64)?
        {
            *url = format!("data:image/png;base64,{png}");
        }
    }
    Ok(crate::json::to_vec(&whole))
}

fn parts(request: &ChatRequest) -> impl Iterator<Item = &Part> {
    request.messages.iter().flat_map(|message| &message.parts)
}

/// The form by its first bytes: what the label says is often wrong.
fn format(base64: &str) -> Option<ImageFormat> {
    // Twelve bytes.
    let start = base64.trim_ascii_start().get(..16)?;
    let head = STANDARD.decode(start).ok()?;
    let format = image::guess_format(&head).ok()?;
    matches!(format, ImageFormat::Gif | ImageFormat::WebP).then_some(format)
}

/// The media type of an image that vision models are given, by its first bytes (12 suffice).
pub(crate) fn media_type(head: &[u8]) -> Option<&'static str> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    let format = image::guess_format(head).ok()?;
    matches!(format, Png | Jpeg | Gif | Bmp | WebP).then(|| format.to_mime_type())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::chat::{Message, Role};

    /// A red picture of two by one pixels.
    fn sample(format: ImageFormat) -> String {
        let mut bytes = Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(2, 1, image::Rgb([255, 0, 0]));
        picture.write_to(&mut bytes, format).unwrap();
        STANDARD.encode(bytes.get_ref())
    }

    fn chat(base64: &str) -> ChatRequest {
        let mut message = Message::text(Role::User, "what is it?");
        message.parts.push(Part::Image {
            mime: "image/jpeg".into(),
            base64: base64.into(),
        });
        ChatRequest {
            messages: vec![message],
            ..ChatRequest::default()
        }
    }

    #[test]
    fn webp_and_gif_become_png() {
        for format in [ImageFormat::WebP, ImageFormat::Gif] {
            let mut request = chat(&sample(format));
            assert!(needs_fit(&request));
            fit(&mut request).unwrap();
            let Part::Image { mime, base64 } = &request.messages[0].parts[1] else {
                panic!("no image")
            };
            assert_eq!(mime, "image/png");
            let bytes = STANDARD.decode(base64).unwrap();
            let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png).unwrap();
            assert_eq!((picture.width(), picture.height()), (2, 1));
            assert_eq!(picture.to_rgb8().get_pixel(0, 0).0, [255, 0, 0]);
            assert!(!needs_fit(&request));
        }
    }

    #[test]
    fn bodies_that_are_relayed() {
        for format in [ImageFormat::WebP, ImageFormat::Gif] {
            let url = format!("data:image/jpeg;base64,{}", sample(format));
            let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "plain"},
                {"role": "user", "content": [{"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": url}}, {"type": "image_url", "image_url": url}]}]});
            let body = body.to_string();
            assert!(body_needs_fit(body.as_bytes()));
            let fitted = fit_body(body.as_bytes()).unwrap();
            assert!(!body_needs_fit(&fitted));
            let fitted: Value = serde_json::from_slice(&fitted).unwrap();
            let parts = &fitted["messages"][1]["content"];
            for url in [&parts[1]["image_url"]["url"], &parts[2]["image_url"]] {
                assert!(
                    url.as_str().unwrap().starts_with("data:image/png;base64,iVBOR"),
                    "{url}"
                );
            }
            assert_eq!(fitted["messages"][0]["content"], "plain");
        }
        assert!(!body_needs_fit(b"{\"messages\":[]}"));
        assert_eq!(fit_body(b"no JSON").unwrap(), b"no JSON");
    }

    #[test]
    fn other_forms_pass_and_damage_is_named() {
        for same in [
            sample(ImageFormat::Png),
            "/9j/4AAQSkZJRgABAQ==".into(),
            "?".into(),
            String::new(),
        ] {
            assert_eq!(to_png(&same), Ok(None));
        }
        let cut = sample(ImageFormat::WebP)[..24].to_owned();
        assert_eq!(to_png(&cut).unwrap_err().code.as_deref(), Some("invalid_image"));
        let huge = STANDARD.encode(b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02");
        assert!(to_png(&huge).is_err());
    }
}
