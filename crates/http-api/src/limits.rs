//! Limits per client address (management contract 2, promise H4): requests per minute, at once, and streams at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{ErrorKind, RunnerError};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::listener::Flavour;
use crate::settings::Limits;

type Rate = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Counters of every client that a limit applies to. Clients without limits are never looked up.
#[derive(Default)]
pub(crate) struct Limiter {
    clients: Mutex<HashMap<(Flavour, IpAddr), Arc<Client>>>,
}

struct Client {
    limits: Limits,
    rate: Option<Rate>,
    running: AtomicU32,
    streaming: AtomicU32,
}

/// A place among a client's requests; given back when dropped.
pub(crate) struct Permit {
    client: Arc<Client>,
    streaming: std::sync::atomic::AtomicBool,
    /// Requests left in this minute.
    left: Option<u32>,
}

/// Addresses remembered before idle ones are forgotten.
const REMEMBERED: usize = 4096;

impl Limiter {
    /// Counts a request. `None`: no limits apply.
    pub(crate) fn admit(
        &self,
        flavour: Flavour,
        peer: IpAddr,
        limits: Limits,
    ) -> Result<Option<Permit>, Box<Exceeded>> {
        if limits == Limits::default() {
            return Ok(None);
        }
        let client = self.client(flavour, peer, limits);
        let mut left = None;
        if let Some(rate) = &client.rate {
            match rate.check() {
                Ok(snapshot) => left = Some(snapshot.remaining_burst_capacity()),
                Err(wait) => {
                    let retry_after = wait.wait_time_from(DefaultClock::default().now());
                    return Err(Exceeded::new(retry_after, limits.per_minute));
                }
            }
        }
        if !take(&client.running, limits.concurrent) {
            return Err(Exceeded::new(Duration::from_secs(1), limits.per_minute));
        }
        Ok(Some(Permit {
            client,
            streaming: false.into(),
            left,
        }))
    }

    fn client(&self, flavour: Flavour, peer: IpAddr, limits: Limits) -> Arc<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(flavour, peer)).filter(|client| client.limits == limits) {
            return Arc::clone(client);
        }
        if clients.len() >= REMEMBERED {
            clients.retain(|_, client| Arc::strong_count(client) > 1);
        }
        let rate = limits.per_minute.and_then(std::num::NonZeroU32::new).map(|per_minute| {
            RateLimiter::direct(Quota::per_minute(per_minute)).with_middleware::<StateInformationMiddleware>()
        });
        let client = Arc::new(Client {
            limits,
            rate,
            running: AtomicU32::new(0),
            streaming: AtomicU32::new(0),
        });
        clients.insert((flavour, peer), Arc::clone(&client));
        client
    }
}

/// Adds one unless that exceeds the limit.
fn take(count: &AtomicU32, limit: Option<u32>) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            limit.is_none_or(|max| now < max).then_some(now + 1)
        })
        .is_ok()
}

impl Permit {
    /// The answer will be a stream: counts it as one.
    pub(crate) fn stream(&self) -> Result<(), RunnerError> {
        if self.streaming.swap(true, Ordering::Relaxed) || take(&self.client.streaming, self.client.limits.streaming) {
            return Ok(());
        }
        self.streaming.store(false, Ordering::Relaxed);
        Err(Exceeded::new(Duration::from_secs(1), None).error)
    }

    /// `RateLimit` fields for an answer within the limit.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        if let (Some(limit), Some(left)) = (self.client.limits.per_minute, self.left) {
            write_headers(headers, limit, left, 60 / u64::from(limit.max(1)) + 1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.client.running.fetch_sub(1, Ordering::Relaxed);
        if *self.streaming.get_mut() {
            self.client.streaming.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A client exceeded a limit: 429.
#[derive(Debug)]
pub(crate) struct Exceeded {
    pub(crate) error: RunnerError,
    per_minute: Option<u32>,
    wait: Duration,
}

impl Exceeded {
    fn new(wait: Duration, per_minute: Option<u32>) -> Box<Self> {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("Rate limit exceeded. Try again in {seconds} seconds.");
        let kind = ErrorKind::RateLimited {
            retry_after: Duration::from_secs(seconds),
        };
        Box::new(Self {
            error: RunnerError::new(kind, message).code("rate_limit_exceeded"),
            per_minute,
            wait,
        })
    }

    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        if let Some(limit) = self.per_minute {
            write_headers(headers, limit, 0, self.wait.as_secs() + 1);
        }
    }
}

/// The IETF draft's fields and the `x-ratelimit-*` that OpenAI clients read.
fn write_headers(headers: &mut HeaderMap, limit: u32, left: u32, reset_s: u64) {
    for (name, value) in [
        ("ratelimit-policy", format!("\"default\";q={limit};w=60")),
        ("ratelimit", format!("\"default\";r={left};t={reset_s}")),
        ("x-ratelimit-limit-requests", limit.to_string()),
        ("x-ratelimit-remaining-requests", left.to_string()),
        ("x-ratelimit-reset-requests", format!("{reset_s}s")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn no_limits_no_bookkeeping() {
        let limiter = Limiter::default();
        assert!(
            limiter
                .admit(Flavour::Ollama, PEER, Limits::default())
                .unwrap()
                .is_none()
        );
        assert!(limiter.clients.lock().unwrap().is_empty());
    }

    #[test]
    fn per_minute() {
        let limiter = Limiter::default();
        let limits = Limits {
            per_minute: Some(3),
            ..Limits::default()
        };
        for left in [2, 1, 0] {
            let permit = limiter.admit(Flavour::Ollama, PEER, limits).unwrap().unwrap();
            assert_eq!(permit.left, Some(left));
        }
        let refused = limiter.admit(Flavour::Ollama, PEER, limits).err().unwrap();
        let seconds = refused.error.retry_after_seconds().unwrap();
        assert!((1..=20).contains(&seconds), "{seconds}");
        assert_eq!(
            refused.error.message,
            format!("Rate limit exceeded. Try again in {seconds} seconds.")
        );
        let mut headers = HeaderMap::new();
        refused.write_headers(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=3;w=60");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "0");
        assert!(
            limiter.admit(Flavour::LmStudio, PEER, limits).is_ok(),
            "each listener counts for itself"
        );
    }

    #[test]
    fn concurrent_and_streaming() {
        let limiter = Limiter::default();
        let limits = Limits {
            concurrent: Some(2),
            streaming: Some(1),
            per_minute: None,
        };
        let admit = || limiter.admit(Flavour::Ollama, PEER, limits).map(Option::unwrap);
        let (a, b) = (admit().unwrap(), admit().unwrap());
        assert!(admit().is_err());
        assert!(a.stream().is_ok());
        assert!(a.stream().is_ok(), "counted once");
        assert!(b.stream().is_err());
        drop(a);
        assert!(b.stream().is_ok());
        assert!(admit().is_ok());
    }
}
