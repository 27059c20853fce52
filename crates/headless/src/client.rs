//! A small HTTP client for the management interface.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connecting to a machine that is there takes no longer.
const CONNECT: Duration = Duration::from_secs(3);

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// `host:port`.
    authority: String,
}

/// What is sent with a request.
pub(crate) struct Content {
    /// Its media type.
    pub(crate) kind: String,
    /// Its length in bytes; `None`: known only at its end.
    pub(crate) length: Option<u64>,
    /// The bytes.
    pub(crate) body: UnsyncBoxBody<Bytes, std::io::Error>,
}

/// An answer whose body is still to come. Dropping it closes the connection, which cancels what the server does.
pub(crate) struct Answer {
    status: StatusCode,
    body: Incoming,
    buffer: BytesMut,
    /// Drives the connection; ends with this value.
    _connection: JoinSet<()>,
}

impl Client {
    /// A server by authority.
    pub(crate) fn new(authority: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
        }
    }

    /// A server by URL, for example `http://127.0.0.1:5800`.
    pub(crate) fn from_url(url: &str) -> anyhow::Result<Self> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => bail!("{url}: {scheme} is not supported; use http://HOST:PORT"),
            None => url,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() {
            bail!("{url} names no host; use http://HOST:PORT");
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self::new(if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        }))
    }

    /// For messages.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let content = match body {
            Some(value) => Some(Content {
                kind: "application/json".to_owned(),
                length: None,
                body: whole(serde_json::to_vec(value)?),
            }),
            None => None,
        };
        self.send_content(method, path, content).await
    }

    /// Sends a request with any content and waits for the head of the answer.
    pub(crate) async fn send_content(
        &self,
        method: Method,
        path: &str,
        content: Option<Content>,
    ) -> anyhow::Result<Answer> {
        let connecting = TcpStream::connect(&self.authority);
        let stream = tokio::time::timeout(CONNECT, connecting).await.context("no answer")??;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its end shows as the end of the body.
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.authority)
            .header(
                http::header::USER_AGENT,
                concat!("llama-runner/", env!("CARGO_PKG_VERSION")),
            );
        let body = match content {
            Some(content) => {
                request = request.header(http::header::CONTENT_TYPE, content.kind);
                if let Some(length) = content.length {
                    request = request.header(http::header::CONTENT_LENGTH, length);
                }
                content.body
            }
            None => whole(Vec::new()),
        };
        let response = sender.send_request(request.body(body)?).await?;
        let status = response.status();
        Ok(Answer {
            status,
            body: response.into_body(),
            buffer: BytesMut::new(),
            _connection: driver,
        })
    }

    /// A JSON document.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await?.json().await
    }

    /// Sends a JSON document and gets one.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(body)).await?.json().await
    }
}

impl Answer {
    /// This answer if it is a success, else its error as a sentence.
    pub(crate) async fn success(self) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let status = self.status;
        let body = self.body.collect().await?.to_bytes();
        Err(anyhow!("{}", error_message(status, &body)))
    }

    /// The whole body as a JSON document.
    pub(crate) async fn json(self) -> anyhow::Result<Value> {
        let body = self.success().await?.body.collect().await?.to_bytes();
        serde_json::from_slice(&body).context("the server did not answer with JSON; is it a LlamaRunner?")
    }

    /// The next piece of the body as it came.
    pub(crate) async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The next line of newline-delimited JSON; `None` at the end.
    pub(crate) async fn line(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            match self.piece().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(String::from_utf8_lossy(&self.buffer.split()).trim().to_owned())),
            }
        }
    }

    /// The data of the next server-sent event; `None` at the end. Events of one line, which is what servers of this
    /// interface send.
    pub(crate) async fn event(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if let Some(data) = line.strip_prefix(b"data:") {
                    return Ok(Some(String::from_utf8_lossy(data).trim().to_owned()));
                }
            }
            match self.piece().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

fn whole(bytes: Vec<u8>) -> UnsyncBoxBody<Bytes, std::io::Error> {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The sentence inside an error body of any dialect.
fn error_message(status: StatusCode, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &value["error"];
    let sentence = error["message"].as_str().or_else(|| error.as_str());
    sentence.map_or_else(|| format!("the server answered {status}"), str::to_owned)
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, authority) in [
            ("http://127.0.0.1:5800", "127.0.0.1:5800"),
            ("http://127.0.0.1:5800/ui/", "127.0.0.1:5800"),
            ("box:9", "box:9"),
            ("http://box", "box:80"),
            ("http://[::1]:5800", "[::1]:5800"),
        ] {
            assert_eq!(Client::from_url(url).unwrap(), Client::new(authority), "{url}");
        }
        assert!(Client::from_url("https://box").is_err());
        assert!(Client::from_url("http:///x").is_err());
    }

    #[test]
    fn names_become_segments() {
        assert_eq!(segment("org/name:Q4_K_M é"), "org%2Fname%3AQ4_K_M%20%C3%A9");
    }

    #[test]
    fn errors_of_every_dialect() {
        let message = |body: &str| error_message(StatusCode::NOT_FOUND, body.as_bytes());
        assert_eq!(message(r#"{"error":{"message":"gone","code":1}}"#), "gone");
        assert_eq!(message(r#"{"error":"gone"}"#), "gone");
        assert_eq!(message("<html>"), "the server answered 404 Not Found");
    }
}
