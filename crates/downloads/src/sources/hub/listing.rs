use http::header::LINK;
use http::{Method, StatusCode};
use ollama_store::Digest;
use reqwest::Url;
use serde::Deserialize;

use super::{Repo, headers, refusal};
use crate::DownloadError;
use crate::sources::{LONGEST_ANSWER, Origin};

/// Pages of one listing: a thousand files each.
const MOST_PAGES: usize = 20;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources) struct Entry {
    pub(in crate::sources) path: String,
    pub(in crate::sources) size: u64,
    /// Published for files in large-file storage.
    pub(in crate::sources) sha256: Option<Digest>,
    /// Published for the others: the name of the contents in git.
    pub(in crate::sources) git_sha1: Option<String>,
}

impl Entry {
    /// The path's last part.
    pub(in crate::sources) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    oid: String,
    size: u64,
}

/// All files of a repository.
pub(in crate::sources) async fn list(origin: &Origin, repo: &Repo) -> Result<Vec<Entry>, DownloadError> {
    list_folder(origin, repo, "").await
}

/// All files below a folder of a repository.
pub(in crate::sources) async fn list_folder(
    origin: &Origin,
    repo: &Repo,
    folder: &str,
) -> Result<Vec<Entry>, DownloadError> {
    let mut segments = vec!["api", "models", &repo.owner, &repo.name, "tree", &repo.revision];
    segments.extend(folder.split('/').filter(|part| !part.is_empty()));
    let mut url = Origin::address(&origin.settings.huggingface_base_url, &segments)?;
    url.query_pairs_mut().append_pair("recursive", "true");
    let mut entries = Vec::new();
    for _ in 0..MOST_PAGES {
        let answer = origin.ask(Method::GET, &url, &headers(origin)).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(origin, repo, &answer));
        }
        let next = answer.header(LINK).and_then(|link| next_page(&url, link));
        let listed: Vec<Listed> = serde_json::from_slice(&answer.bytes(LONGEST_ANSWER).await?)
            .map_err(|_| DownloadError::Origin(format!("the hub's answer is not a listing of {}", repo.id())))?;
        entries.extend(
            listed
                .into_iter()
                .filter(|entry| entry.kind == "file")
                .map(|entry| Entry {
                    git_sha1: Some(entry.oid.to_ascii_lowercase()).filter(|oid| entry.lfs.is_none() && is_sha1(oid)),
                    size: entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size),
                    sha256: entry.lfs.and_then(|lfs| Digest::from_hex(&lfs.oid)),
                    path: entry.path,
                }),
        );
        match next {
            Some(next) => url = next,
            None => return Ok(entries),
        }
    }
    Ok(entries)
}

fn is_sha1(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The address in `<…>; rel="next"`; one at another host is not followed, since it would see the token.
fn next_page(at: &Url, link: &str) -> Option<Url> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, next) = next.split_once('<')?;
    let (next, _) = next.split_once('>')?;
    let next = at.join(next).ok()?;
    (next.origin() == at.origin()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_with_the_host() {
        let at = Url::parse("https://h/api").unwrap();
        let next = |link: &str| next_page(&at, link).map(String::from);
        assert_eq!(
            next("<https://h/api?cursor=a>; rel=\"next\"").as_deref(),
            Some("https://h/api?cursor=a")
        );
        assert_eq!(
            next("</x>; rel=\"prev\", </api?c=b>; rel=\"next\"").as_deref(),
            Some("https://h/api?c=b")
        );
        for link in [
            "<https://other/api>; rel=\"next\"",
            "<http://h/api>; rel=\"next\"",
            "</x>; rel=\"prev\"",
            "junk",
        ] {
            assert_eq!(next(link), None, "{link}");
        }
    }
}
