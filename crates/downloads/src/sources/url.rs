use std::path::PathBuf;

use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::{Origin, blocking, hub};
use crate::{DownloadError, Finish, Plan, PlannedFile, paths};

/// Most parts of a split model that a name alone can make us ask for.
const MOST_PARTS: u32 = 500;

/// One GGUF file at an address; of a split model all its parts. Addresses of the hub are the hub's matter: it publishes
/// hashes.
pub(super) async fn resolve(origin: &Origin, text: &str, file_name: Option<&str>) -> Result<Plan, DownloadError> {
    let url = super::parse(text).ok_or_else(|| {
        DownloadError::InvalidName(format!(
            "{} is not an http or https address without a user name in it",
            shown(text)
        ))
    })?;
    if file_name.is_none() && hub::is_address(origin, &url) {
        return hub::resolve(origin, text, None).await;
    }
    let own = last_segment(&url);
    let name = file_name.unwrap_or(&own);
    let name = paths::file_name(name)?;
    let stem = stem(name)
        .ok_or_else(|| DownloadError::Unsupported(format!("{name:?} is not a GGUF file: only those can be run")))?;
    let parts = match gguf::SplitName::parse(stem) {
        // A further name for one part of a set would break the set.
        Some(split) if own == name && split.count <= MOST_PARTS => part_addresses(&url, &split)?,
        _ => vec![(url.clone(), name.to_owned())],
    };
    let base = gguf::SplitName::parse(stem).map_or_else(|| stem.to_owned(), |split| split.prefix);
    let folder = format!(
        "{}/{}",
        folder_name(url.host_str().unwrap_or_default()),
        folder_name(&base)
    );
    let root = origin.settings.models_dir.clone();
    let mut files = Vec::new();
    for (url, name) in parts {
        files.push(PlannedFile {
            path: paths::under(&root, &format!("{folder}/{name}"))?,
            size: size_of(origin, &url).await?,
            url,
            headers: HeaderMap::new(),
            sha256: None,
            git_sha1: None,
            label: name,
        });
    }
    let first = files.first().map(|file| file.label.clone()).unwrap_or_default();
    let already_present = present(&files).await?;
    Ok(Plan {
        name: format!("{folder}/{first}"),
        quantization: gguf::split_quant(&base).1.map(|quant| quant.to_uppercase()),
        root,
        files,
        finish: Finish::nothing(),
        becomes: None,
        already_present,
    })
}

/// Does every file lie where it belongs, in the size that is published?
pub(super) async fn present(files: &[PlannedFile]) -> Result<bool, DownloadError> {
    let wanted: Vec<(PathBuf, Option<u64>)> = files.iter().map(|file| (file.path.clone(), file.size)).collect();
    blocking(move || {
        wanted.iter().all(|(path, size)| {
            let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
            found.is_some_and(|found| Some(found.len()) == *size)
        })
    })
    .await
}

/// The name of a GGUF file without its extension.
pub(super) fn stem(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    (extension.eq_ignore_ascii_case("gguf") && !stem.is_empty()).then_some(stem)
}

fn last_segment(url: &Url) -> String {
    let last = url.path_segments().and_then(Iterator::last).unwrap_or_default();
    percent_decode_str(last).decode_utf8_lossy().into_owned()
}

/// An address that may be no address, for a message: whatever stands before an `@` could be a password.
fn shown(text: &str) -> String {
    let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    format!("{:?}", text.chars().take(200).collect::<String>())
}

fn part_addresses(url: &Url, split: &gguf::SplitName) -> Result<Vec<(Url, String)>, DownloadError> {
    (1..=split.count)
        .map(|number| {
            let name = split.file_name(number);
            let mut at = url.clone();
            at.path_segments_mut()
                .map_err(|()| DownloadError::InvalidName("the address has no path".into()))?
                .pop()
                .push(&name);
            Ok((at, name))
        })
        .collect()
}

/// A folder of our own choosing that still tells where a file came from.
fn folder_name(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    let name = name.trim_matches(['.', '-']);
    if paths::file_name(name).is_ok() {
        name.to_owned()
    } else {
        format!("model-{name}").trim_end_matches('-').to_owned()
    }
}

/// What the origin says about the size; it need not say anything.
async fn size_of(origin: &Origin, url: &Url) -> Result<Option<u64>, DownloadError> {
    let answer = origin.ask(Method::HEAD, url, &HeaderMap::new()).await?;
    match answer.status() {
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(DownloadError::NotFound("File not found on server".into())),
        // A refusal may mean HEAD alone: signed addresses are signed for GET.
        StatusCode::OK => Ok(answer.content_length().filter(|_| !answer.is_html())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_never_choose_a_path() {
        for (text, folder) in [
            ("example.com", "example.com"),
            ("[::1]", "1"),
            ("..", "model"),
            ("a/../b", "a-..-b"),
            ("nul", "model-nul"),
            ("", "model"),
        ] {
            assert_eq!(folder_name(text), folder, "{text}");
            assert!(paths::file_name(&folder_name(text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn messages_show_no_password() {
        assert_eq!(shown("http://me:secret@host/x"), "\"host/x\"");
    }
}
