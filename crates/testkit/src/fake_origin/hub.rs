use http::header::ETAG;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::content::{Content, HubFile, HubRepo, git_sha1};
use super::serve::{self, Answer};
use super::server::{self, Asked};
use super::{Shared, lock};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub: `resolve`, listing, facts and search. `None`: another path.
pub(super) fn answer(asked: &Asked, shared: &Shared) -> Option<Answer> {
    let content = lock(&shared.content);
    if asked.path == "/api/models" {
        return Some(search(asked, &content));
    }
    if let Some(rest) = asked.path.strip_prefix("/api/models/") {
        let mut parts = rest.splitn(3, '/');
        let name = format!("{}/{}", parts.next()?, parts.next()?);
        let what = parts.next().unwrap_or_default();
        let Some(repo) = visible(asked, &content, &name) else {
            return Some(not_found(asked));
        };
        return Some(match what.strip_prefix("tree/") {
            Some(at) => tree(
                asked,
                shared,
                repo,
                &name,
                at.split_once('/').map_or("", |(_, folder)| folder),
            ),
            None if what.is_empty() || what.starts_with("revision/") => facts(&name, repo),
            None => serve::json(StatusCode::NOT_FOUND, &json!({"error": "Not Found"})),
        });
    }
    let (name, rest) = asked.path.trim_start_matches('/').split_once("/resolve/")?;
    if name.split('/').count() != 2 {
        return None;
    }
    let (_revision, path) = rest.split_once('/')?;
    let Some(repo) = visible(asked, &content, name) else {
        return Some(not_found(asked));
    };
    let file = repo.files.get(path).cloned();
    let refused = refuse_gated(asked, name, repo);
    drop(content);
    let Some(file) = file else {
        return Some(error(StatusCode::NOT_FOUND, "EntryNotFound", "Entry not found"));
    };
    Some(refused.unwrap_or_else(|| resolve(asked, shared, &file)))
}

/// The repository, if the one who asks may know that it exists.
fn visible<'a>(asked: &Asked, content: &'a Content, name: &str) -> Option<&'a HubRepo> {
    let repo = content.repos.get(name)?;
    (!repo.private || asked.bearer() == repo.token.as_deref()).then_some(repo)
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let mut answer = serve::json(status, &json!({"error": message}));
    let headers = answer.headers_mut();
    for (name, value) in [("x-error-code", code), ("x-error-message", message)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    answer
}

/// Who shows no token cannot be told apart from who may not see it.
fn not_found(asked: &Asked) -> Answer {
    let status = if asked.bearer().is_none() {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::NOT_FOUND
    };
    error(status, "RepoNotFound", "Invalid username or password.")
}

fn refuse_gated(asked: &Asked, name: &str, repo: &HubRepo) -> Option<Answer> {
    if !repo.gated || (asked.bearer().is_some() && asked.bearer() == repo.token.as_deref()) {
        return None;
    }
    let (status, why) = if asked.bearer().is_none() {
        (
            StatusCode::UNAUTHORIZED,
            "You must have access to it and be authenticated to access it. Please log in.",
        )
    } else {
        (StatusCode::FORBIDDEN, "Visit the page to ask for access.")
    };
    let message = format!("Access to model {name} is restricted. {why}");
    Some(error(status, "GatedRepo", &message))
}

fn resolve(asked: &Asked, shared: &Shared, file: &HubFile) -> Answer {
    let hash = shared.sha256(&file.bytes);
    let (mut answer, linked) = if file.lfs {
        let digest = format!("sha256:{hash}");
        lock(&shared.content).blobs.insert(digest.clone(), file.bytes.clone());
        (
            serve::redirect(StatusCode::FOUND, &server::signed(shared, &digest)),
            hash,
        )
    } else {
        (server::file(asked, shared, &file.bytes), git_sha1(&file.bytes))
    };
    let size = file.bytes.len().to_string();
    let tag = format!("\"{linked}\"");
    let headers = answer.headers_mut();
    for (name, value) in [
        ("x-repo-commit", COMMIT),
        ("x-linked-size", size.as_str()),
        ("x-linked-etag", tag.as_str()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value)
            && (file.lfs || name == "x-repo-commit")
        {
            headers.insert(name, value);
        }
    }
    if file.lfs
        && let Ok(value) = HeaderValue::try_from(tag.as_str())
    {
        headers.insert(ETAG, value);
    }
    answer
}

fn facts(name: &str, repo: &HubRepo) -> Answer {
    let siblings: Vec<Value> = repo.files.keys().map(|path| json!({"rfilename": path})).collect();
    let gated: Value = if repo.gated { "auto".into() } else { false.into() };
    serve::json(
        StatusCode::OK,
        &json!({
            "_id": "0", "id": name, "modelId": name, "author": name.split('/').next(), "sha": COMMIT,
            "private": repo.private, "gated": gated, "disabled": false, "tags": ["gguf"], "downloads": 1, "likes": 0,
            "siblings": siblings,
        }),
    )
}

fn tree(asked: &Asked, shared: &Shared, repo: &HubRepo, name: &str, folder: &str) -> Answer {
    let recursive = asked
        .parameter("recursive")
        .is_some_and(|value| value != "false" && value != "0");
    let inside = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let mut entries: Vec<Value> = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    for (path, file) in &repo.files {
        let Some(below) = path.strip_prefix(&inside) else {
            continue;
        };
        if let Some((sub, _)) = below.rsplit_once('/') {
            let sub = if recursive {
                sub
            } else {
                sub.split('/').next().unwrap_or(sub)
            };
            let sub = format!("{inside}{sub}");
            if !folders.contains(&sub) {
                entries.push(json!({"type": "directory", "oid": COMMIT, "size": 0, "path": sub}));
                folders.push(sub);
            }
            if !recursive {
                continue;
            }
        }
        let mut entry = json!({"type": "file", "oid": git_sha1(&file.bytes), "size": file.bytes.len(), "path": path});
        if file.lfs {
            let hash = shared.sha256(&file.bytes);
            entry["lfs"] = json!({"oid": hash, "size": file.bytes.len(), "pointerSize": 135});
        }
        entries.push(entry);
    }
    let from: usize = asked
        .parameter("cursor")
        .and_then(|cursor| cursor.parse().ok())
        .unwrap_or(0);
    let size = if repo.page_size == 0 {
        entries.len().max(1)
    } else {
        repo.page_size
    };
    let total = entries.len();
    let page: Vec<Value> = entries.into_iter().skip(from).take(size).collect();
    let mut answer = serve::json(StatusCode::OK, &json!(page));
    if from + size < total {
        let next = format!(
            "<http://{}/api/models/{name}/tree/main{}{folder}?recursive={recursive}&cursor={}>; rel=\"next\"",
            shared.origin,
            if folder.is_empty() { "" } else { "/" },
            from + size
        );
        if let Ok(value) = HeaderValue::try_from(next) {
            answer.headers_mut().insert("link", value);
        }
    }
    answer
}

fn search(asked: &Asked, content: &Content) -> Answer {
    let wanted = asked.parameter("search").unwrap_or_default().to_lowercase();
    let limit = asked
        .parameter("limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(100);
    let found: Vec<Value> = content
        .repos
        .iter()
        .filter(|(name, repo)| !repo.private && name.to_lowercase().contains(&wanted))
        .take(limit)
        .map(|(name, _)| json!({"_id": "0", "id": name, "modelId": name, "tags": ["gguf"], "downloads": 1, "likes": 0}))
        .collect();
    serve::json(StatusCode::OK, &json!(found))
}
