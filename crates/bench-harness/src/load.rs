//! The load client: hand-written HTTP/1.1 over one socket, so that its own cost is small and the same for every target.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One keep-alive connection.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

/// How the body of an answer is delimited.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(64 * 1024),
            start: 0,
        })
    }

    async fn fill(&mut self) -> Result<()> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        ensure!(
            self.socket.read_buf(&mut self.buffer).await? > 0,
            "the connection was closed"
        );
        Ok(())
    }

    /// Sends prepared request bytes and reads the head; an answer other than 200 is an error.
    async fn begin(&mut self, request: &[u8]) -> Result<Framing> {
        self.socket.write_all(request).await?;
        let head = loop {
            let seen = &self.buffer[self.start..];
            if let Some(at) = find(seen, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&seen[..at]).to_ascii_lowercase();
                self.start += at + 4;
                break head;
            }
            self.fill().await?;
        };
        ensure!(head.starts_with("http/1.1 200"), "not 200: {head}");
        if head.contains("transfer-encoding: chunked") {
            return Ok(Framing::Chunked);
        }
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length:"))
            .context("no length")?
            .trim()
            .parse()?;
        Ok(Framing::Length(length))
    }

    /// Reads the body to its end, handing each piece to `each`.
    async fn body(&mut self, framing: Framing, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match framing {
            Framing::Length(mut left) => {
                while left > 0 {
                    if self.start == self.buffer.len() {
                        self.fill().await?;
                    }
                    let take = left.min(self.buffer.len() - self.start);
                    each(&self.buffer[self.start..self.start + take])?;
                    self.start += take;
                    left -= take;
                }
                Ok(())
            }
            Framing::Chunked => loop {
                let Some(line) = find(&self.buffer[self.start..], b"\r\n") else {
                    self.fill().await?;
                    continue;
                };
                let text = std::str::from_utf8(&self.buffer[self.start..self.start + line])?;
                let size = usize::from_str_radix(text.trim(), 16).with_context(|| format!("chunk size {text:?}"))?;
                while self.buffer.len() - self.start < line + 2 + size + 2 {
                    self.fill().await?;
                }
                let from = self.start + line + 2;
                each(&self.buffer[from..from + size])?;
                self.start = from + size + 2;
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    /// One request; the body must contain `expected`.
    pub(crate) async fn ask(&mut self, request: &[u8], expected: &[u8]) -> Result<()> {
        let framing = self.begin(request).await?;
        let mut whole = Vec::with_capacity(1024);
        self.body(framing, |piece| {
            whole.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        if find(&whole, expected).is_none() {
            bail!("wrong content: {}", String::from_utf8_lossy(&whole));
        }
        Ok(())
    }

    /// One stream; returns how many lines carried `marker` followed by 0, 1, 2, … A gap or a missing end is an error.
    pub(crate) async fn stream(&mut self, request: &[u8], marker: &[u8], end: &[u8]) -> Result<u64> {
        let framing = self.begin(request).await?;
        let mut line = Vec::with_capacity(1024);
        let (mut next, mut ended) = (0u64, false);
        self.body(framing, |piece| {
            for part in piece.split_inclusive(|b| *b == b'\n') {
                line.extend_from_slice(part);
                if !part.ends_with(b"\n") {
                    continue;
                }
                if let Some(at) = find(&line, marker) {
                    let digits = &line[at + marker.len()..];
                    let length = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
                    let number: u64 = std::str::from_utf8(&digits[..length])?.parse()?;
                    ensure!(number == next, "event {number} came where {next} was due");
                    next += 1;
                }
                ended |= find(&line, end).is_some();
                line.clear();
            }
            Ok(())
        })
        .await?;
        ensure!(ended, "the stream ended without its end mark");
        Ok(next)
    }

    /// Opens a stream and returns when its first piece of body has come; the connection stays open.
    pub(crate) async fn first_piece(&mut self, request: &[u8]) -> Result<()> {
        let _framing = self.begin(request).await?;
        while self.start == self.buffer.len() {
            self.fill().await?;
        }
        Ok(())
    }
}

/// A POST with a JSON body, ready to be sent again and again.
pub(crate) fn post(address: SocketAddr, path: &str, body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
