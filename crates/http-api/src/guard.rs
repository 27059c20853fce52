//! Who may ask at all: host names (promise S2) and web origins (promise S3), before anything has an effect.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::listener::Flavour;
use crate::routes::Class;
use crate::settings::ApiSettings;
use crate::state::ListenersView;

/// What the decision depends on besides the headers.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) class: Class,
    pub(crate) flavour: Flavour,
    pub(crate) settings: &'a ApiSettings,
    pub(crate) listeners: &'a ListenersView,
    pub(crate) machine_name: Option<&'a str>,
}

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `Host` is missing, doubled, malformed or contradicts the request target: 400.
    BadHost,
    /// The host name is not ours (DNS rebinding): 403.
    Host,
    /// A web page of an origin that may not ask this: 403.
    Origin,
}

impl Refusal {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::BadHost => "The Host header is missing or malformed.",
            Self::Host => {
                "This host name is not allowed. Use 127.0.0.1 or localhost, or add the name to allowed_hosts in the \
                 configuration."
            }
            Self::Origin => {
                "This web origin is not allowed. Add it to allowed_origins in the configuration if you trust it."
            }
        }
    }
}

/// What LM Studio's port calls every origin once `lmstudio.cors` is on.
pub(crate) const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

/// Decides. `Ok` holds the origin to name in CORS headers, when there is one.
pub(crate) fn check(asked: &Asked<'_>) -> Result<Option<HeaderValue>, Refusal> {
    let browser = asked.headers.contains_key(ORIGIN) || asked.headers.contains_key("sec-fetch-site");
    let host = host(asked)?;
    if !host_allowed(asked, &host, browser) {
        return Err(Refusal::Host);
    }
    let mut origins = asked.headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(_), Some(_)) => Err(Refusal::Origin),
        (Some(origin), None) => {
            let text = origin.to_str().map_err(|_| Refusal::Origin)?;
            if origin_allowed(asked, text, &host) {
                Ok(named(asked, origin, text))
            } else {
                Err(Refusal::Origin)
            }
        }
        (None, _) => fetch_metadata(asked).map(|()| None),
    }
}

/// Does the request come from a page of our own window? Such requests are not counted against limits.
pub(crate) fn from_window(asked: &Asked<'_>) -> bool {
    let origin = asked.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    origin.is_some_and(|origin| host(asked).is_ok_and(|host| gui_origin(asked, origin, &host)))
}

/// Requests of browsers that carry no `Origin`: images, scripts, navigation, same-origin GET.
fn fetch_metadata(asked: &Asked<'_>) -> Result<(), Refusal> {
    let get = |name| asked.headers.get(name).map(HeaderValue::as_bytes);
    match get("sec-fetch-site") {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => {
            // A link from another site may open the window's shell as a page of its own, and nothing else.
            let top_level = get("sec-fetch-mode") == Some(b"navigate")
                && matches!(get("sec-fetch-dest"), None | Some(b"document"))
                && matches!(*asked.method, Method::GET | Method::HEAD);
            if top_level && asked.class == Class::UiShell {
                Ok(())
            } else {
                Err(Refusal::Origin)
            }
        }
    }
}

/// A checked `Host` value in lower case, with its port apart.
#[derive(Debug, PartialEq, Eq)]
struct Host<'a> {
    whole: &'a str,
    name: &'a str,
    ip: Option<IpAddr>,
}

fn host<'a>(asked: &Asked<'a>) -> Result<Host<'a>, Refusal> {
    let mut values = asked.headers.get_all(HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::BadHost);
    };
    let text = value.to_str().map_err(|_| Refusal::BadHost)?;
    // An absolute request target names a host too; two different names are two readings of one request.
    if asked
        .uri
        .authority()
        .is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(text))
    {
        return Err(Refusal::BadHost);
    }
    parse_host(text).ok_or(Refusal::BadHost)
}

fn parse_host(text: &str) -> Option<Host<'_>> {
    let (name, port, ip) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let ip = inside.parse::<std::net::Ipv6Addr>().ok()?;
        (&text[..inside.len() + 2], after, Some(IpAddr::V6(ip)))
    } else {
        let at = text.find(':').unwrap_or(text.len());
        let (name, port) = text.split_at(at);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(legal) {
            return None;
        }
        (name, port, name.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4))
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => {}
        Some(digits)
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok() => {}
        _ => return None,
    }
    Some(Host { whole: text, name, ip })
}

fn host_allowed(asked: &Asked<'_>, host: &Host<'_>, browser: bool) -> bool {
    if let Some(ip) = host.ip {
        // A browser reaches 0.0.0.0 only through a page that tries to get around the address checks.
        return !(ip.is_unspecified() && browser);
    }
    let is = |name: &str| host.name.eq_ignore_ascii_case(name);
    is("localhost")
        || asked.machine_name.is_some_and(is)
        || asked
            .settings
            .listener(asked.flavour)
            .allowed_hosts
            .iter()
            .any(|name| is(name) || host.whole.eq_ignore_ascii_case(name))
}

fn origin_allowed(asked: &Asked<'_>, origin: &str, host: &Host<'_>) -> bool {
    if gui_origin(asked, origin, host) || listed(asked, origin) {
        return true;
    }
    match asked.class {
        Class::Management | Class::UiShell => false,
        Class::Inference | Class::Public => loopback_origin(origin) || same_origin(origin, host) || every_origin(asked),
    }
}

/// Did the user list this origin for what is asked?
fn listed(asked: &Asked<'_>, origin: &str) -> bool {
    let rules = match asked.class {
        Class::Management | Class::UiShell => &asked.settings.management,
        Class::Inference | Class::Public => asked.settings.listener(asked.flavour),
    };
    rules
        .allowed_origins
        .iter()
        .any(|pattern| matches_pattern(pattern, origin))
}

/// `lmstudio.cors`: every page may use inference on LM Studio's port.
fn every_origin(asked: &Asked<'_>) -> bool {
    asked.flavour == Flavour::LmStudio
        && asked.settings.lmstudio_port.cors
        && matches!(asked.class, Class::Inference | Class::Public)
}

/// What the answer calls the origin of an allowed page, so that the page can read it. LM Studio's port says nothing unless
/// the user wants it to (LM Studio contract 9.2).
fn named(asked: &Asked<'_>, origin: &HeaderValue, text: &str) -> Option<HeaderValue> {
    if asked.flavour != Flavour::LmStudio {
        return Some(origin.clone());
    }
    if every_origin(asked) {
        return Some(ANY_ORIGIN);
    }
    listed(asked, text).then(|| origin.clone())
}

/// The window's own origins: the desktop shell's, and that of the management listener.
fn gui_origin(asked: &Asked<'_>, origin: &str, host: &Host<'_>) -> bool {
    if ["tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"].contains(&origin) {
        return true;
    }
    if asked.flavour == Flavour::Management && same_origin(origin, host) {
        return true;
    }
    let Some(address) = asked.listeners.management.address else {
        return false;
    };
    let Some((name, port)) = origin.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')) else {
        return false;
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]") && port.parse() == Ok(address.port())
}

fn same_origin(origin: &str, host: &Host<'_>) -> bool {
    origin
        .strip_prefix("http://")
        .is_some_and(|rest| rest.eq_ignore_ascii_case(host.whole))
}

/// `http(s)://localhost`, `127.0.0.1` or `[::1]`, any port: other programs' pages on this machine.
fn loopback_origin(origin: &str) -> bool {
    let Some(rest) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    parse_host(rest).is_some_and(|host| matches!(host.name, "localhost" | "127.0.0.1" | "[::1]"))
}

/// Does a listed origin match? `*` stands for any run of characters, as in `OLLAMA_ORIGINS`. `null` only when listed as such.
fn matches_pattern(pattern: &str, origin: &str) -> bool {
    let pattern = pattern.trim_end_matches('/');
    if pattern == "*" {
        return origin != "null";
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| strip_prefix_ignore_case(origin, first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.to_ascii_lowercase().find(&part.to_ascii_lowercase()) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len()
        && rest.is_char_boundary(rest.len() - last.len())
        && rest[rest.len() - last.len()..].eq_ignore_ascii_case(last)
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// This machine's own name, where the system tells.
pub(crate) fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .or_else(|_| std::env::var("COMPUTERNAME").or_else(|_| std::env::var("HOSTNAME")))
        .ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
