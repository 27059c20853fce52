use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server behind the proxy.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What goes wrong after `at` bytes in one direction of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Both sides are reset.
    Cut {
        /// In this direction.
        direction: Direction,
        /// After so many bytes.
        at: u64,
    },
    /// Nothing more is passed, the connection stays open.
    Stall {
        /// In this direction.
        direction: Direction,
        /// After so many bytes.
        at: u64,
    },
    /// From there one byte at a time.
    Dribble {
        /// In this direction.
        direction: Direction,
        /// After so many bytes.
        at: u64,
        /// Pause before each byte.
        pause: Duration,
    },
}

/// A TCP proxy on a free loopback port that breaks connections at an exact byte. Dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl FaultProxy {
    /// Listens and passes every connection to `target`, each with the same fault.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: SocketAddr, fault: Fault) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let open = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let (counter, token, tasks) = (Arc::clone(&open), stop.clone(), TaskTracker::new());
        let accepting = tasks.clone();
        tasks.spawn(async move {
            while let Some(Ok((client, _))) = token.run_until_cancelled(listener.accept()).await {
                let (counter, token) = (Arc::clone(&counter), token.clone());
                accepting.spawn(async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    // A connection that breaks is what this proxy is for.
                    let _ = token.run_until_cancelled(pass(client, target, fault)).await;
                    counter.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self {
            address,
            open,
            _stop: stop.drop_guard(),
        })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, fault: Fault) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // Lingering for zero seconds turns the drop at a cut into a reset.
    if matches!(fault, Fault::Cut { .. }) {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    // Borrowed halves: owned ones would send an orderly end when dropped, and a cut must look like a crash.
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = copy(from_client, to_server, fault, Direction::ToServer);
    let down = copy(from_server, to_client, fault, Direction::ToClient);
    tokio::try_join!(up, down).map(|_| ())
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, fault: Fault, direction: Direction) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0_u64;
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        let bytes = &buffer[..n];
        let before = |at: u64| usize::try_from(at.saturating_sub(passed)).unwrap_or(usize::MAX).min(n);
        match fault {
            Fault::Cut { direction: d, at } if d == direction => {
                let good = before(at);
                to.write_all(&bytes[..good]).await?;
                if passed + n as u64 >= at {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
            Fault::Stall { direction: d, at } if d == direction => {
                to.write_all(&bytes[..before(at)]).await?;
                if passed + n as u64 >= at {
                    return std::future::pending().await;
                }
            }
            Fault::Dribble {
                direction: d,
                at,
                pause,
            } if d == direction => {
                let (good, slow) = bytes.split_at(before(at));
                to.write_all(good).await?;
                for byte in slow {
                    tokio::time::sleep(pause).await;
                    to.write_all(std::slice::from_ref(byte)).await?;
                }
            }
            _ => to.write_all(bytes).await?,
        }
        passed += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        TaskTracker::new().spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        address
    }

    /// Sends 1000 bytes through the proxy; returns what came back and how the connection ended.
    async fn exchange(fault: Fault) -> (usize, &'static str) {
        let proxy = FaultProxy::start(echo().await, fault).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        socket.write_all(&[b'x'; 1000]).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut seen = Vec::new();
        match tokio::time::timeout(Duration::from_millis(300), socket.read_to_end(&mut seen)).await {
            Err(_) => (seen.len(), "open"),
            Ok(Ok(_)) => (seen.len(), "end"),
            Ok(Err(_)) => (seen.len(), "reset"),
        }
    }

    #[tokio::test]
    async fn faults_hit_at_the_byte() {
        use Direction::{ToClient, ToServer};
        assert_eq!(exchange(Fault::None).await, (1000, "end"));
        assert_eq!(
            exchange(Fault::Stall {
                direction: ToClient,
                at: 7
            })
            .await,
            (7, "open")
        );
        assert_eq!(
            exchange(Fault::Stall {
                direction: ToServer,
                at: 9
            })
            .await,
            (9, "open")
        );
        let (n, how) = exchange(Fault::Cut {
            direction: ToClient,
            at: 7,
        })
        .await;
        // A reset may overtake the bytes before it.
        assert!(n <= 7 && how == "reset", "{n} {how}");
        let pause = Duration::from_millis(1);
        let slow = Fault::Dribble {
            direction: ToClient,
            at: 995,
            pause,
        };
        assert_eq!(exchange(slow).await, (1000, "end"));
    }

    #[tokio::test]
    async fn dropping_closes_connections() {
        let proxy = FaultProxy::start(echo().await, Fault::None).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        socket.write_all(b"a").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'a');
        assert_eq!(proxy.open_connections(), 1);
        drop(proxy);
        assert!(matches!(socket.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}
