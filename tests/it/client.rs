//! A plain blocking HTTP/1.1 client, so that nothing of ours stands between the test and the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.as_str())
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

/// An answer whose body is read piece by piece.
pub(crate) struct Open {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    chunked: bool,
    left: usize,
    done: bool,
}

impl Open {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next piece of the body; `None` at its proper end. A cut connection is an error.
    pub(crate) fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        if self.chunked {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16)
                .map_err(|_| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the chunked body was cut"))?;
            let mut piece = vec![0; size + 2];
            self.reader.read_exact(&mut piece)?;
            piece.truncate(size);
            self.done = size == 0;
            return Ok((size > 0).then_some(piece));
        }
        let mut body = vec![0; self.left];
        self.reader.read_exact(&mut body)?;
        self.done = true;
        Ok(Some(body))
    }

    /// The rest of the body.
    pub(crate) fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece()? {
            body.extend(piece);
        }
        Ok(body)
    }
}

/// Sends a request and reads the head of the answer.
pub(crate) fn open(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Open> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let body = body.map(ToString::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let find = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.clone())
    };
    let chunked = find("transfer-encoding").is_some_and(|v| v.contains("chunked"));
    let left = find("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    Ok(Open {
        status,
        headers,
        reader,
        chunked,
        left,
        done: false,
    })
}

/// Sends a request and reads the whole answer.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
    let mut open = open(address, method, path, body)?;
    let body = open.rest()?;
    Ok(Answer {
        status: open.status,
        headers: open.headers,
        body,
    })
}

/// `GET`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, None).unwrap_or_else(|e| panic!("GET {path}: {e}"))
}

/// `POST`.
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    request(address, "POST", path, Some(body)).unwrap_or_else(|e| panic!("POST {path}: {e}"))
}
