use bytes::Bytes;
use domain::RegistryName;
use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;

use super::{LONGEST_ANSWER, Origin, bearer};
use crate::DownloadError;
use crate::http::{Response, host_of, same_origin};

/// Longest text of an error that is passed on, in characters.
const LONGEST_ERROR: usize = 2000;

/// A model in a registry (Ollama contract 12).
#[derive(Debug)]
pub(crate) struct Registry<'o> {
    origin: &'o Origin,
    base: String,
    name: RegistryName,
    token: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl<'o> Registry<'o> {
    /// The registry of a name: the configured one for names without a host, else https, or http where the caller allows it.
    pub(crate) fn of(origin: &'o Origin, text: &str, insecure: bool) -> Result<Self, DownloadError> {
        let name = RegistryName::parse(text).ok_or_else(|| DownloadError::InvalidName("invalid model name".into()))?;
        let scheme = text
            .trim()
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        if scheme.as_deref() == Some("http") && !insecure {
            return Err(DownloadError::Refused("insecure protocol http".into()));
        }
        let base = if name.is_default_host() {
            origin.settings.ollama_registry_base_url.clone()
        } else {
            // As Ollama does: whoever allows plain HTTP gets it, unless the name says otherwise.
            let plain = insecure && scheme.as_deref() != Some("https");
            format!("{}://{}", if plain { "http" } else { "https" }, name.host)
        };
        Ok(Self {
            origin,
            base,
            name,
            token: None,
        })
    }

    pub(crate) fn name(&self) -> &RegistryName {
        &self.name
    }

    /// An address below `/v2/<namespace>/<model>/`.
    pub(crate) fn address(&self, below: &[&str]) -> Result<Url, DownloadError> {
        let mut segments = vec!["v2", self.name.namespace.as_str(), self.name.model.as_str()];
        segments.extend(below);
        Origin::address(&self.base, &segments)
    }

    /// What every request to the registry's host carries, and no other host may see.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(agent) = HeaderValue::try_from(user_agent()) {
            headers.insert(USER_AGENT, agent);
        }
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        headers
    }

    /// Asks for the manifest; redirects are followed, a challenge for a token is met once.
    pub(crate) async fn manifest(&mut self) -> Result<Bytes, DownloadError> {
        let tag = self.name.tag.clone();
        let url = self.address(&["manifests", &tag])?;
        let mut answer = self.get_manifest(&url).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.log_in(&answer).await?;
            answer = self.get_manifest(&url).await?;
        }
        if answer.status() == StatusCode::OK {
            return answer.bytes(LONGEST_ANSWER).await;
        }
        Err(refusal(answer).await)
    }

    async fn get_manifest(&self, url: &Url) -> Result<Response, DownloadError> {
        let mut headers = self.headers();
        headers.insert(ACCEPT, HeaderValue::from_static(ollama_store::media::MANIFEST));
        self.origin.ask(Method::GET, url, &headers).await
    }

    /// One request of a push to an address of this registry or one that it named; a challenge for a token is met once.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        url: &Url,
        with: &[(HeaderName, String)],
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        let answer = self.once(method.clone(), url, with, body.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !self.is_own(url) {
            return Ok(answer);
        }
        self.log_in(&answer).await?;
        self.once(method, url, with, body).await
    }

    async fn once(
        &self,
        method: Method,
        url: &Url,
        with: &[(HeaderName, String)],
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        let mut headers = if self.is_own(url) {
            self.headers()
        } else {
            HeaderMap::new()
        };
        for (name, value) in with {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        self.origin.http.once(method, url, &headers, body).await
    }

    fn is_own(&self, url: &Url) -> bool {
        super::parse(&self.base).is_some_and(|base| same_origin(&base, url))
    }

    /// Gets a token where a 401 says, if that is the registry itself: another realm would collect whatever proves who we are
    /// (CVE-2025-51471).
    async fn log_in(&mut self, answer: &Response) -> Result<(), DownloadError> {
        let denied = || DownloadError::Unauthorized("unauthorized: access denied".into());
        let challenge = answer
            .header(WWW_AUTHENTICATE)
            .and_then(Challenge::parse)
            .ok_or_else(denied)?;
        let own = Origin::address(&self.base, &[])?;
        let mut realm = super::parse(&challenge.realm).ok_or_else(denied)?;
        if !same_origin(&own, &realm) {
            return Err(DownloadError::Refused(format!(
                "realm host {:?} does not match original host {:?}",
                host_of(&realm),
                host_of(&own)
            )));
        }
        {
            let mut query = realm.query_pairs_mut();
            query.append_pair("service", &challenge.service);
            for scope in challenge.scope.split_ascii_whitespace() {
                query.append_pair("scope", scope);
            }
        }
        let answer = self.origin.ask(Method::GET, &realm, &self.headers()).await?;
        if answer.status() != StatusCode::OK {
            return Err(denied());
        }
        let token: Token = serde_json::from_slice(&answer.bytes(LONGEST_ANSWER).await?).map_err(|_| denied())?;
        self.token = Some(bearer(&token.token).ok_or_else(denied)?);
        Ok(())
    }
}

/// What a registry's refusal means; a registry that asks for a newer client says so in its text (412), which is passed on.
pub(crate) async fn refusal(answer: Response) -> DownloadError {
    let status = answer.status();
    match status {
        StatusCode::NOT_FOUND => return DownloadError::NotFound("file does not exist".into()),
        StatusCode::UNAUTHORIZED => return DownloadError::Unauthorized("unauthorized: access denied".into()),
        _ => {}
    }
    let is_page = answer.is_html();
    let text = match answer.bytes(LONGEST_ANSWER).await {
        Ok(bytes) if !is_page => String::from_utf8_lossy(&bytes)
            .trim()
            .chars()
            .take(LONGEST_ERROR)
            .collect(),
        _ => String::new(),
    };
    let text = if text.is_empty() {
        status.to_string()
    } else {
        format!("{}: {text}", status.as_u16())
    };
    match status {
        StatusCode::FORBIDDEN => DownloadError::Unauthorized(text),
        _ => DownloadError::Origin(text),
    }
}

/// Ollama's form: some registries refuse models by the version in it.
fn user_agent() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    format!(
        "ollama/{} ({arch} {os}) llama-runner/{}",
        domain::OLLAMA_VERSION,
        env!("CARGO_PKG_VERSION")
    )
}

/// `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: String,
    scope: String,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut challenge = Self::default();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match key.trim_matches([',', ' ']).to_ascii_lowercase().as_str() {
                "realm" => value.clone_into(&mut challenge.realm),
                "service" => value.clone_into(&mut challenge.service),
                "scope" => value.clone_into(&mut challenge.scope),
                _ => {}
            }
            rest = after;
        }
        (!challenge.realm.is_empty()).then_some(challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let full = r#"Bearer realm="https://r/token",service="s",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(full),
            Some(Challenge {
                realm: "https://r/token".into(),
                service: "s".into(),
                scope: "repository:a/b:pull,push".into(),
            })
        );
        assert_eq!(
            Challenge::parse("bearer realm=https://r/t, service=x").map(|c| (c.realm, c.service)),
            Some(("https://r/t".into(), "x".into()))
        );
        for text in [
            "",
            "Basic realm=\"x\"",
            "Bearer",
            "Bearer service=\"x\"",
            "Bearer realm=\"x",
        ] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }
}
