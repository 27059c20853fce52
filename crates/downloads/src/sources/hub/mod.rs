//! The Hugging Face hub: listings with hashes, files by `resolve`, gated and private repositories.

mod choose;
mod listing;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::Deserialize;

pub(super) use choose::{Variant, choose, projector, variants};
pub(super) use listing::{Entry, list, list_folder};

use super::url::present;
use super::{LONGEST_ANSWER, Origin, bearer, speech};
use crate::http::Response;
use crate::{DownloadError, Finish, Plan, PlannedFile, paths};

/// Where the hub is known under, besides the configured address.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// The revision that names without one mean.
const MAIN: &str = "main";
/// Most results of a search.
const MOST_RESULTS: usize = 100;

/// A repository, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repo {
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) revision: String,
    /// A file or folder that the address names.
    path: Option<String>,
}

/// A repository that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HubRepository {
    /// `owner/name`.
    pub id: String,
    /// Downloads lately.
    #[serde(default)]
    pub downloads: u64,
    /// People who like it.
    #[serde(default)]
    pub likes: u64,
}

/// One way to download a repository: a quantization with all its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOption {
    /// Label as the file spells it, upper case; none: the file name has none.
    pub quantization: Option<String>,
    /// File name, of a split model the first part's.
    pub file: String,
    /// Bytes in all, with the projector that comes along.
    pub size: u64,
    /// What is taken when nothing is said.
    pub recommended: bool,
}

impl Repo {
    /// `owner/name`, or an address of the hub: of the repository, a folder or a file in it.
    pub(super) fn parse(origin: &Origin, text: &str) -> Result<Self, DownloadError> {
        let wrong = || {
            DownloadError::InvalidName(format!(
                "{:?} is not a repository of the hub: use owner/name or its address",
                text.chars().take(200).collect::<String>()
            ))
        };
        let segments: Vec<String> = match super::parse(text) {
            Some(url) if is_address(origin, &url) => {
                let prefix = super::parse(&origin.settings.huggingface_base_url)
                    .filter(|base| base.host_str() == url.host_str())
                    .map(|base| base.path().trim_end_matches('/').to_owned())
                    .unwrap_or_default();
                let path = url.path().strip_prefix(&prefix).unwrap_or(url.path());
                let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
                path.split('/').filter(|part| !part.is_empty()).map(decode).collect()
            }
            _ => text.split('/').map(str::to_owned).collect(),
        };
        let [owner, name, rest @ ..] = segments.as_slice() else {
            return Err(wrong());
        };
        if ["datasets", "spaces", "models", "api"].contains(&owner.as_str()) || !is_name(owner) || !is_name(name) {
            return Err(wrong());
        }
        let (revision, path) = match rest {
            [] => (MAIN.to_owned(), None),
            [view, revision, path @ ..] if ["tree", "blob", "resolve"].contains(&view.as_str()) => {
                (revision.clone(), (!path.is_empty()).then(|| path.join("/")))
            }
            _ => return Err(wrong()),
        };
        Ok(Self {
            owner: owner.clone(),
            name: name.clone(),
            revision,
            path,
        })
    }

    /// The main revision of a repository.
    pub(super) fn of(owner: &str, name: &str) -> Self {
        Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: MAIN.to_owned(),
            path: None,
        }
    }

    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    fn page(&self, origin: &Origin) -> String {
        format!(
            "{}/{}",
            origin.settings.huggingface_base_url.trim_end_matches('/'),
            self.id()
        )
    }

    /// Where a file of it is.
    pub(super) fn file_address(&self, origin: &Origin, path: &str) -> Result<Url, DownloadError> {
        let mut segments = vec![
            self.owner.as_str(),
            self.name.as_str(),
            "resolve",
            self.revision.as_str(),
        ];
        segments.extend(path.split('/'));
        Origin::address(&origin.settings.huggingface_base_url, &segments)
    }
}

/// The hub's rule for names of owners and repositories; dots alone are no name (promise D4).
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 96 && text.chars().all(allowed) && paths::file_name(text).is_ok()
}

/// Is this an address of the hub? On the configured host, which may hold other files too, only what looks like one.
pub(super) fn is_address(origin: &Origin, url: &Url) -> bool {
    if url.host_str().is_some_and(|host| HOSTS.contains(&host)) {
        return true;
    }
    let is_base = super::parse(&origin.settings.huggingface_base_url).is_some_and(|base| {
        base.host_str() == url.host_str() && base.port_or_known_default() == url.port_or_known_default()
    });
    let path: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let views = ["resolve", "blob", "tree"];
    is_base
        && (views.iter().any(|view| path.contains(view)) || (path.len() == 2 && super::url::stem(url.path()).is_none()))
}

/// What requests to the hub carry: the token, which no other host may see (promise S7).
pub(super) fn headers(origin: &Origin) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let token = origin.settings.hub_token.as_deref().filter(|token| !token.is_empty());
    if let Some(value) = token.and_then(bearer) {
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

/// Files of a repository: a model with its projector, or the one file asked for.
pub(super) async fn resolve(origin: &Origin, text: &str, wanted: Option<&str>) -> Result<Plan, DownloadError> {
    let repo = Repo::parse(origin, text)?;
    let entries = list(origin, &repo).await?;
    if wanted.is_none() && repo.path.is_none() && speech::is_converted(&entries) {
        return speech::plan(origin, &repo, &entries).await;
    }
    let inside: Vec<Entry> = match &repo.path {
        // An address of a folder: what is in it. Of a file: that one.
        Some(path) if super::url::stem(path).is_none() => {
            let folder = format!("{path}/");
            entries
                .iter()
                .filter(|entry| entry.path.starts_with(&folder))
                .cloned()
                .collect()
        }
        _ => entries.clone(),
    };
    let wanted = wanted
        .map(str::trim)
        .filter(|wanted| !wanted.is_empty())
        .or_else(|| repo.path.as_deref().filter(|path| super::url::stem(path).is_some()));
    let found = variants(&inside);
    let variant = choose(&repo.id(), &found, &inside, wanted)?;
    let mut chosen: Vec<&Entry> = variant.files.iter().collect();
    chosen.extend(projector(&entries, &variant));
    let root = origin.settings.models_dir.clone();
    let headers = headers(origin);
    let mut files = Vec::new();
    for entry in chosen {
        let name = paths::file_name(entry.name())?;
        files.push(PlannedFile {
            url: repo.file_address(origin, &entry.path)?,
            headers: headers.clone(),
            sha256: entry.sha256,
            git_sha1: entry.git_sha1.clone(),
            size: Some(entry.size),
            path: paths::under(&root, &format!("{}/{name}", repo.id()))?,
            label: name.to_owned(),
        });
    }
    let first = files.first().map(|file| file.label.clone()).unwrap_or_default();
    let already_present = present(&files).await?;
    if !already_present {
        may_read(origin, &repo, &files).await?;
    }
    Ok(Plan {
        name: format!("{}/{first}", repo.id()),
        quantization: variant.label,
        root,
        files,
        finish: Finish::nothing(),
        becomes: None,
        already_present,
    })
}

/// Listings of gated repositories are public, their files are not: asks for one before anything is promised.
pub(super) async fn may_read(origin: &Origin, repo: &Repo, files: &[PlannedFile]) -> Result<(), DownloadError> {
    let Some(file) = files.first() else {
        return Ok(());
    };
    // The hub's own answer decides; where it redirects to is the transfer's matter.
    let answer = origin.http.once(Method::HEAD, &file.url, &file.headers, None).await?;
    match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(refusal(origin, repo, &answer)),
        _ => Ok(()),
    }
}

/// What a refusal of the hub means, and what to do.
fn refusal(origin: &Origin, repo: &Repo, answer: &Response) -> DownloadError {
    let (id, page) = (repo.id(), repo.page(origin));
    let has_token = headers(origin).contains_key(AUTHORIZATION);
    match (answer.status(), answer.header("x-error-code")) {
        (_, Some("GatedRepo")) if has_token => DownloadError::Unauthorized(format!(
            "{id} is gated: accept its licence at {page} with the account that the Hugging Face token belongs to"
        )),
        (_, Some("GatedRepo")) => DownloadError::Unauthorized(format!(
            "{id} is gated: accept its licence at {page}, then set a Hugging Face token (HF_TOKEN)"
        )),
        (_, Some("EntryNotFound")) => DownloadError::NotFound(format!("{id} has no such file")),
        (_, Some("RevisionNotFound")) => DownloadError::NotFound(format!("{id} has no revision {:?}", repo.revision)),
        // Who shows no token is told the same of a repository that is private as of one that is not there.
        (StatusCode::UNAUTHORIZED, _) if !has_token => DownloadError::NotFound(format!(
            "the hub has no repository {id}, or it is private: then set a Hugging Face token (HF_TOKEN)"
        )),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            DownloadError::Unauthorized(format!("the hub refuses the Hugging Face token for {id}"))
        }
        (StatusCode::NOT_FOUND, _) => DownloadError::NotFound(format!("the hub has no repository {id}")),
        (status, _) => DownloadError::Origin(format!("the hub answered {status} for {id}")),
    }
}

/// Reads a small file of a repository as text; `None` when it is not among the entries.
pub(super) async fn small_file(
    origin: &Origin,
    repo: &Repo,
    entries: &[Entry],
    path: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, DownloadError> {
    if !entries.iter().any(|entry| entry.path == path) {
        return Ok(None);
    }
    let url = repo.file_address(origin, path)?;
    let answer = origin.ask(Method::GET, &url, &headers(origin)).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(origin, repo, &answer));
    }
    Ok(Some(answer.bytes(limit).await?.to_vec()))
}

/// Repositories with GGUF files whose name or text fits a search term, best first.
///
/// # Errors
/// When the hub cannot be asked.
pub async fn search(origin: &Origin, term: &str, limit: usize) -> Result<Vec<HubRepository>, DownloadError> {
    let mut url = Origin::address(&origin.settings.huggingface_base_url, &["api", "models"])?;
    url.query_pairs_mut()
        .append_pair("search", term)
        .append_pair("filter", "gguf")
        .append_pair("sort", "downloads")
        .append_pair("limit", &limit.clamp(1, MOST_RESULTS).to_string());
    let answer = origin.ask(Method::GET, &url, &headers(origin)).await?;
    if answer.status() != StatusCode::OK {
        return Err(DownloadError::Origin(format!(
            "the hub answered {} to a search",
            answer.status()
        )));
    }
    let bytes = answer.bytes(LONGEST_ANSWER).await?;
    let mut found: Vec<HubRepository> =
        serde_json::from_slice(&bytes).map_err(|_| DownloadError::Origin("the hub's answer is not a list".into()))?;
    found.retain(|found| found.id.split('/').count() == 2 && found.id.split('/').all(is_name));
    Ok(found)
}

/// What of a repository (`owner/name` or its address) can be downloaded.
///
/// # Errors
/// [`DownloadError::NotFound`], [`DownloadError::Unauthorized`], or when the hub cannot be asked.
pub async fn options(origin: &Origin, repo: &str) -> Result<Vec<HubOption>, DownloadError> {
    let repo = Repo::parse(origin, repo)?;
    let entries = list(origin, &repo).await?;
    let found = variants(&entries);
    let best = choose(&repo.id(), &found, &entries, None).ok();
    let option = |variant: &Variant| {
        let extra = projector(&entries, variant).map_or(0, |entry| entry.size);
        Some(HubOption {
            quantization: variant.label.clone(),
            file: variant.files.first()?.name().to_owned(),
            size: variant.files.iter().map(|entry| entry.size).sum::<u64>() + extra,
            recommended: best.as_ref() == Some(variant),
        })
    };
    Ok(found.iter().filter_map(option).collect())
}
