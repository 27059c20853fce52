use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::OriginBody;
use super::content::{Content, sha256};
use super::serve::{self, Answer};
use super::server::{self, Asked};
use super::{Shared, lock};

/// The registry protocol (Ollama contract 12; pushes as in the OCI distribution specification). `None`: another path.
pub(super) fn answer(asked: &Asked, shared: &Shared) -> Option<Answer> {
    if asked.path == "/token" {
        return Some(token(shared));
    }
    let rest = asked.path.strip_prefix("/v2/")?;
    if let Some(refused) = refuse(asked, shared, rest) {
        return Some(refused);
    }
    if rest.is_empty() {
        return Some(serve::json(StatusCode::OK, &json!({})));
    }
    if let Some((name, tag)) = rest.split_once("/manifests/") {
        return Some(manifest(asked, shared, name, tag));
    }
    if let Some((name, id)) = rest.split_once("/blobs/uploads/") {
        return Some(upload(asked, shared, name, id));
    }
    let (_, digest) = rest.split_once("/blobs/")?;
    Some(blob(asked, shared, digest))
}

/// Whoever asks gets a token; what it opens is the registry's business.
fn token(shared: &Shared) -> Answer {
    let token = lock(&shared.content).token.as_ref().map(|(token, _)| token.clone());
    serve::json(
        StatusCode::OK,
        &json!({"token": token.unwrap_or_default(), "expires_in": 300}),
    )
}

fn refuse(asked: &Asked, shared: &Shared, rest: &str) -> Option<Answer> {
    let content = lock(&shared.content);
    let (token, realm) = content.token.as_ref()?;
    if asked.bearer() == Some(token) {
        return None;
    }
    let name = rest
        .split("/manifests/")
        .next()
        .and_then(|name| name.split("/blobs/").next());
    let scope = format!("repository:{}:pull", name.unwrap_or_default());
    Some(serve::unauthorized(realm, &scope))
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    serve::json(status, &json!({"errors": [{"code": code, "message": message}]}))
}

fn manifest(asked: &Asked, shared: &Shared, name: &str, tag: &str) -> Answer {
    let key = (name.to_owned(), tag.to_owned());
    let mut content = lock(&shared.content);
    if asked.method == Method::PUT {
        if let Some(missing) = missing_blob(&content, &asked.body) {
            return error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", &missing);
        }
        content.manifests.insert(key, asked.body.clone());
        let digest = format!("sha256:{}", sha256(&asked.body));
        let headers = [("docker-content-digest", digest.as_str())];
        return serve::answer(StatusCode::CREATED, &headers, OriginBody::complete(""));
    }
    match content.manifests.get(&key) {
        Some(bytes) => {
            let digest = format!("sha256:{}", sha256(bytes));
            let headers = [
                (
                    CONTENT_TYPE.as_str(),
                    "application/vnd.docker.distribution.manifest.v2+json",
                ),
                ("docker-content-digest", digest.as_str()),
            ];
            serve::answer(StatusCode::OK, &headers, OriginBody::complete(bytes.clone()))
        }
        None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

/// The first blob of a manifest that was not uploaded, or what is wrong with the manifest.
fn missing_blob(content: &Content, manifest: &[u8]) -> Option<String> {
    let Ok(manifest) = serde_json::from_slice::<Value>(manifest) else {
        return Some("manifest is not JSON".into());
    };
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    layers.iter().chain([&manifest["config"]]).find_map(|layer| {
        let digest = layer["digest"].as_str().unwrap_or_default();
        let stored = content.blobs.get(digest).map(|bytes| bytes.len() as u64);
        (stored.is_none() || stored != layer["size"].as_u64()).then(|| format!("blob {digest} is unknown"))
    })
}

fn blob(asked: &Asked, shared: &Shared, digest: &str) -> Answer {
    let bytes = lock(&shared.content).blobs.get(digest).cloned();
    let Some(bytes) = bytes else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    if asked.method == Method::HEAD {
        return server::file(asked, shared, &bytes);
    }
    serve::redirect(StatusCode::TEMPORARY_REDIRECT, &server::signed(shared, digest))
}

/// POST begins an upload, PATCH appends a chunk, PUT ends it with its digest.
fn upload(asked: &Asked, shared: &Shared, name: &str, id: &str) -> Answer {
    let mut content = lock(&shared.content);
    if asked.method == Method::POST {
        content.next_upload += 1;
        let id = format!("upload-{}", content.next_upload);
        content.uploads.insert(id.clone(), Vec::new());
        let location = format!("http://{}/v2/{name}/blobs/uploads/{id}?_state=0", shared.origin);
        let headers = [(LOCATION.as_str(), location.as_str()), ("range", "0-0")];
        return serve::answer(StatusCode::ACCEPTED, &headers, OriginBody::complete(""));
    }
    let Some(so_far) = content.uploads.get_mut(id) else {
        return error(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            "blob upload unknown to registry",
        );
    };
    let length = so_far.len();
    if let Some(range) = asked.headers.get("content-range").and_then(|range| range.to_str().ok()) {
        let expected = format!("{length}-{}", (length + asked.body.len()).saturating_sub(1));
        if range != expected {
            return error(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                &format!("expected {expected}"),
            );
        }
    }
    so_far.extend_from_slice(&asked.body);
    let length = so_far.len();
    if asked.method == Method::PATCH {
        let location = format!("http://{}/v2/{name}/blobs/uploads/{id}?_state={length}", shared.origin);
        let range = format!("0-{}", length.saturating_sub(1));
        let headers = [(LOCATION.as_str(), location.as_str()), ("range", range.as_str())];
        return serve::answer(StatusCode::ACCEPTED, &headers, OriginBody::complete(""));
    }
    let bytes = content.uploads.remove(id).unwrap_or_default();
    let digest = format!("sha256:{}", sha256(&bytes));
    if asked.parameter("digest").as_deref() != Some(&digest) {
        return error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        );
    }
    content.blobs.insert(digest.clone(), bytes.into());
    let headers = [("docker-content-digest", digest.as_str())];
    serve::answer(StatusCode::CREATED, &headers, OriginBody::complete(""))
}
