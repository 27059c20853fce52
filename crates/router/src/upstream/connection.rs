use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Head;
use crate::Attached;

/// First read buffer of a response; grows to [`MAX_READ`] while reads fill it.
const MIN_READ: usize = 4 * 1024;
/// Most that is read, and so merged into one frame, at a time.
pub(crate) const MAX_READ: usize = 32 * 1024;
/// Bytes of a file that are sent at a time.
const FILE_PIECE: usize = 64 * 1024;

/// An exchange that did not lead to a response head.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended before the first byte of an answer.
    BeforeAnswer,
    /// It ended in the middle of the head.
    InHead,
    /// The answer is not HTTP.
    Malformed,
    /// The file that was to be sent cannot be read. Its length was told, so what is missing cannot be left out.
    File(io::Error),
}

/// One connection to an engine.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Read and not yet taken; without memory while empty.
    pub(crate) read: BytesMut,
    read_size: usize,
    /// Exchanges begun.
    served: u32,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: BytesMut::new(),
            read_size: MIN_READ,
            served: 0,
        })
    }

    /// Idle and alive: nothing came that nobody asked for, and the engine has not closed it.
    pub(crate) fn is_fresh(&self) -> bool {
        let mut byte = [0];
        self.served < 100 && matches!(self.stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the response head.
    pub(crate) async fn exchange(
        &mut self,
        head: &[u8],
        body: &Bytes,
        attached: Option<&Attached>,
        is_head: bool,
    ) -> Result<Head, Broken> {
        self.served += 1;
        // An engine may answer and close before it has read everything: look for an answer in any case.
        let mut sent = self.write(head, body).await;
        if let Some(file) = attached
            && sent.is_ok()
        {
            sent = self.write_file(file).await?;
        }
        loop {
            if let Some(head) = Head::take(&mut self.read, is_head).map_err(|_| Broken::Malformed)? {
                return Ok(head);
            }
            match std::future::poll_fn(|cx| self.poll_read(cx)).await {
                Ok(n) if n > 0 => {}
                _ if self.read.is_empty() => {
                    if let Err(error) = sent {
                        tracing::debug!(%error, "the engine closed the connection while a request was sent");
                    }
                    return Err(Broken::BeforeAnswer);
                }
                _ => return Err(Broken::InHead),
            }
        }
    }

    async fn write(&mut self, head: &[u8], body: &Bytes) -> io::Result<()> {
        let mut sent = 0;
        while sent < head.len() {
            let parts = [io::IoSlice::new(&head[sent..]), io::IoSlice::new(body)];
            let n = self.stream.write_vectored(&parts).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            sent += n;
        }
        self.stream.write_all(&body[sent - head.len()..]).await
    }

    /// The inner error is the engine's: it may have answered and closed before it has read everything.
    async fn write_file(&mut self, attached: &Attached) -> Result<io::Result<()>, Broken> {
        let mut file = File::open(&attached.path).await.map_err(Broken::File)?;
        let mut piece = vec![0; FILE_PIECE];
        let mut left = attached.size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(FILE_PIECE).min(FILE_PIECE);
            let n = file.read(&mut piece[..wanted]).await.map_err(Broken::File)?;
            if n == 0 {
                return Err(Broken::File(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= n as u64;
            if let Err(error) = self.stream.write_all(&piece[..n]).await {
                return Ok(Err(error));
            }
        }
        Ok(self.stream.write_all(&attached.after).await)
    }

    /// Reads once into `read`; 0: the engine closed the connection.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.stream.poll_read_ready(cx))?;
        // Only now: a silent stream holds no buffer.
        self.read.reserve(self.read_size);
        let room = self.read.capacity() - self.read.len();
        // Not `try_read_buf`: this one knows after a short read that the socket is empty, and does not ask again.
        let polled = std::pin::pin!(self.stream.read_buf(&mut self.read)).poll(cx);
        match polled {
            Poll::Ready(Ok(n)) if n == room => self.read_size = (self.read_size * 4).min(MAX_READ),
            Poll::Ready(Ok(n)) if n * 8 < room => self.read_size = (self.read_size / 2).max(MIN_READ),
            Poll::Pending if self.read.is_empty() => self.read = BytesMut::new(),
            Poll::Ready(_) | Poll::Pending => {}
        }
        polled
    }
}
