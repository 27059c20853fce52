//! Who may be asked (promise S11), decided before each hop and again on the addresses that are connected to.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::is_public;
use crate::{DownloadError, DownloadSettings};

/// The rule about private addresses, as the settings have it.
///
/// A proxy of the environment (`HTTPS_PROXY`) usually stands in a private network and is not a target: only names that were
/// asked for as targets are filtered. Behind a proxy the proxy resolves names; then literal addresses and local names are all
/// that can be refused here.
#[derive(Debug)]
pub(super) struct Guard {
    allow_private: bool,
    /// Origins (scheme, host, port) that the user configured.
    exempt: Vec<(String, String, u16)>,
    /// Hosts that were asked for as targets; their addresses are filtered.
    targets: Mutex<HashSet<String>>,
}

fn origin(url: &Url) -> Option<(String, String, u16)> {
    Some((
        url.scheme().to_owned(),
        url.host_str()?.to_ascii_lowercase(),
        url.port_or_known_default()?,
    ))
}

/// Same scheme, host and port: what a credential is for.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    origin(a).is_some() && origin(a) == origin(b)
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn refused(host: &str) -> DownloadError {
    DownloadError::Refused(format!(
        "{host} is an address in a private network or on this machine. Set \"downloads.allow_private_hosts\" to allow it."
    ))
}

impl Guard {
    pub(super) fn new(settings: &DownloadSettings) -> Arc<Self> {
        let exempt = [&settings.huggingface_base_url, &settings.ollama_registry_base_url]
            .into_iter()
            .filter_map(|base| origin(&Url::parse(base).ok()?))
            .collect();
        Arc::new(Self {
            allow_private: settings.allow_private_hosts,
            exempt,
            targets: Mutex::default(),
        })
    }

    /// Before each request, also of a redirect.
    pub(super) async fn check(&self, url: &Url) -> Result<(), DownloadError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(DownloadError::Refused(format!(
                "addresses that start with {}: are not fetched, only http and https",
                url.scheme()
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(DownloadError::Refused(
                "addresses with a user name or password in them are not fetched".into(),
            ));
        }
        let Some((_, host, port)) = origin(url) else {
            return Err(DownloadError::Refused("the address names no host".into()));
        };
        if self.allow_private || origin(url).is_some_and(|origin| self.exempt.contains(&origin)) {
            return Ok(());
        }
        if let Some(address) = literal(&host) {
            return if is_public(address) {
                Ok(())
            } else {
                Err(refused(&host))
            };
        }
        let name = host.trim_end_matches('.');
        if matches!(name.rsplit('.').next(), Some("localhost" | "local")) {
            return Err(refused(&host));
        }
        if self.exempt.iter().any(|(_, exempt, _)| *exempt == host) {
            // The same host as a mirror's, but another port: the resolver lets the host pass, so it is looked at here.
            let addresses = lookup(&host, port)
                .await
                .map_err(|error| DownloadError::Network(error.to_string()))?;
            return if addresses.iter().all(|address| is_public(address.ip())) {
                Ok(())
            } else {
                Err(refused(&host))
            };
        }
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
        Ok(())
    }

    fn filters(&self, host: &str) -> bool {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.contains(&host.to_ascii_lowercase())
    }
}

async fn lookup(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Resolves once and hands out only what passed, so that what was checked is what is connected to.
pub(super) struct CheckedResolver(pub(super) Arc<Guard>);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let addresses = lookup(&host, 0).await?;
            // One private address among public ones is a rebinding attempt: none is used.
            if guard.filters(&host) && !addresses.iter().all(|address| is_public(address.ip())) {
                return Err(PrivateAddress(host).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Travels through the client's error chain, so that the refusal keeps its reason.
#[derive(Debug, thiserror::Error)]
#[error("{0} resolves to an address in a private network")]
struct PrivateAddress(String);

/// The refusal behind a client error, if it was one.
pub(super) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<DownloadError> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(PrivateAddress(host)) = error.downcast_ref() {
            return Some(refused(host));
        }
        source = error.source();
    }
    None
}
