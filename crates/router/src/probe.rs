//! Requests of our own to an engine, on connections of their own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::upstream::{Connection, Prefix, request_head};

/// The status of the answer to a GET; `None`: no answer in time.
pub(crate) async fn get(address: SocketAddr, key: &str, path: &str, limit: Duration) -> Option<u16> {
    let headers = HeaderMap::new();
    let answer = send(address, key, &Method::GET, path, &headers, Bytes::new());
    tokio::time::timeout(limit, answer).await.ok().flatten()
}

/// The status of the answer; `None`: no answer.
pub(crate) async fn send(
    address: SocketAddr,
    key: &str,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Option<u16> {
    let head = request_head(method, path, headers, body.len() as u64, &Prefix::new(address, key))?;
    let mut connection = Connection::open(address).await.ok()?;
    let answer = connection.exchange(&head, &body, None, false).await.ok()?;
    Some(answer.status.as_u16())
}
