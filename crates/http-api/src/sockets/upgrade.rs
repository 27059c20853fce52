//! From a request to a WebSocket (RFC 6455). Host, Origin and access were checked like those of any request (promise W3).

use domain::RunnerError;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::body::Body;
use crate::errors;
use crate::wire::Wire;

/// A WebSocket with one client.
pub(super) type Socket = WebSocketStream<TcpStream>;

/// Largest message: an image travels in one frame (LM Studio contract 10.1).
const MAX_MESSAGE: usize = 64 << 20;
/// Most sockets are quiet; the default of 128 KiB would be their largest part.
const BUFFER: usize = 8 * 1024;

/// What is needed to open the socket, and the answer that announces it.
pub(super) struct Accepted {
    pub(super) opening: OnUpgrade,
    pub(super) answer: Response<Body>,
}

/// Does the request ask for a WebSocket? The error is the finished answer to one that does not.
pub(super) fn accept(parts: &Parts) -> Result<Accepted, Box<Response<Body>>> {
    let Some(key) = requested(parts) else {
        return Err(Box::new(upgrade_required()));
    };
    let Some(opening) = parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(Box::new(upgrade_required()));
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(Accepted { opening, answer })
}

/// The key of a correct opening handshake.
fn requested(parts: &Parts) -> Option<&HeaderValue> {
    let headers = &parts.headers;
    let correct = parts.method == Method::GET
        && names(headers, &CONNECTION, "upgrade")
        && names(headers, &UPGRADE, "websocket")
        && names(headers, &SEC_WEBSOCKET_VERSION, "13");
    // 16 bytes in base64.
    headers.get(SEC_WEBSOCKET_KEY).filter(|key| correct && key.len() == 24)
}

/// Does a list header hold this word?
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

fn upgrade_required() -> Response<Body> {
    let body = json!({"error": "This path answers WebSockets only; send an upgrade request (RFC 6455)."});
    let mut response = errors::respond(dialects::Rendered::json(426, body.to_string().into_bytes()));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// Waits until the answer has been sent and the connection is ours.
pub(super) async fn open(opening: OnUpgrade) -> Result<Socket, RunnerError> {
    let upgraded = opening
        .await
        .map_err(|_| RunnerError::internal("The connection ended before it became a WebSocket."))?;
    let parts = upgraded
        .downcast::<TokioIo<Wire<TcpStream>>>()
        .map_err(|_| RunnerError::internal("The connection is of an unknown kind."))?;
    let (stream, early) = parts.io.into_inner().into_raw(&parts.read_buf);
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    Ok(WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn status(headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::get("/llm");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        requested(&parts).map(|key| key.len() as u16)
    }

    #[test]
    fn only_correct_handshakes() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(status(&good), Some(24));
        for without in 0..good.len() {
            let mut headers = good.to_vec();
            headers.remove(without);
            assert_eq!(status(&headers), None, "{}", good[without].0);
        }
        let mut other = good;
        other[2].1 = "8";
        assert_eq!(status(&other), None);
        assert_eq!(
            derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
