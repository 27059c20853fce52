use std::collections::HashSet;

use super::*;

fn found(method: &str, path: &'static str) -> String {
    match matcher().find(&method.parse().unwrap(), path) {
        Found::Route(hit) => format!("{:?} {}", hit.route.operation, hit.id),
        Found::Options(routes) => format!("options {}", allow(&routes, true)),
        Found::OtherMethod(routes) => format!("405 {}", allow(&routes, true)),
        Found::TrailingSlash => "slash".into(),
        Found::BadPath => "bad".into(),
        Found::Unknown => "404".into(),
    }
}

#[test]
fn no_method_and_path_twice() {
    let mut seen = HashSet::new();
    for route in ROUTES {
        assert!(
            seen.insert((route.method, route.path)),
            "twice: {:?} {}",
            route.method,
            route.path
        );
    }
}

#[test]
fn every_route_is_found_by_its_own_path() {
    for route in ROUTES {
        let path: &'static str = Box::leak(
            route
                .path
                .replace("{id}", "org/name:tag")
                .replace("{file}", "a/b.js")
                .into_boxed_str(),
        );
        let Found::Route(hit) = matcher().find(&route.method.to_http(), path) else {
            panic!("{path} is not found")
        };
        assert_eq!(hit.route.path, route.path);
    }
}

#[test]
fn every_operation_has_a_route() {
    let routed: HashSet<Operation> = ROUTES.iter().map(|route| route.operation).collect();
    // The last variant's number is the count of the others.
    assert_eq!(routed.len(), Operation::Events as usize + 1);
}

#[test]
fn table() {
    for (method, path, expected) in [
        ("GET", "/v1/models", "ListModels "),
        ("GET", "/v1/models/tiny", "OneModel tiny"),
        ("GET", "/v1/models/org/name:Q4_K_M", "OneModel org/name:Q4_K_M"),
        (
            "GET",
            "/v1/models/org%2Fname%3AQ4_K_M/status",
            "ModelStatus org/name:Q4_K_M",
        ),
        (
            "GET",
            "/v1/models/org/name:Q4_K_M/status",
            "ModelStatus org/name:Q4_K_M",
        ),
        ("GET", "/v1/models/a%2Fstatus", "OneModel a/status"),
        ("POST", "/v1/models/a/b/start", "ModelStart a/b"),
        ("POST", "/v1/models/a/b", "405 GET, HEAD, OPTIONS"),
        ("GET", "/v1/models/a/start", "405 POST, OPTIONS"),
        ("DELETE", "/v1/models/a/start", "405 POST, OPTIONS"),
        ("GET", "/v1/models/status", "OneModel status"),
        ("GET", "/v1/models//status", "OneModel /status"),
        ("GET", "/v1/models/%ff", "bad"),
        ("HEAD", "/", "Root "),
        ("HEAD", "/api/tags", "OllamaTags "),
        ("HEAD", "/api/chat", "405 POST, OPTIONS"),
        ("OPTIONS", "/api/chat", "options POST, OPTIONS"),
        ("OPTIONS", "/v1/models/x", "options GET, HEAD, OPTIONS"),
        ("POST", "/api/tags", "405 GET, HEAD, OPTIONS"),
        ("GET", "/api/tags/", "slash"),
        ("GET", "/api/tags//", "404"),
        ("GET", "/nothing", "404"),
        ("GET", "/api/pull/x", "404"),
        ("GET", "/ui/assets/a.js", "Ui assets/a.js"),
        ("PATCH", "/health", "405 GET, HEAD, OPTIONS"),
    ] {
        assert_eq!(found(method, path), expected, "{method} {path}");
    }
}

#[test]
fn openapi_has_every_route() {
    let document: serde_json::Value = serde_json::from_slice(&document()).unwrap();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str()];
        assert_eq!(operation["x-class"], route.class.as_str(), "{}", route.path);
    }
}

/// What the compatibility contracts document and this product serves so far. A line may only be removed with its contract.
#[test]
fn documented_endpoints_are_routed() {
    let documented = "
        GET /  GET /health  GET /openapi.json  GET /ui/
        GET /api/version  GET /api/status  GET /api/tags  GET /api/ps  POST /api/show  POST /api/generate  POST /api/chat
        POST /api/embed  POST /api/embeddings  POST /api/me  POST /api/experimental/web_search
        POST /api/experimental/web_fetch  GET /api/experimental/model-recommendations
        GET /v1/models  GET /v1/models/{id}  POST /v1/chat/completions  POST /v1/completions  POST /v1/embeddings
        POST /v1/rerank  POST /v1/reranking  POST /rerank  POST /reranking  GET /models
        GET /api/v0/models  GET /api/v0/models/{id}  POST /api/v0/chat/completions  POST /api/v0/completions
        POST /api/v0/embeddings
        GET /v1/models/{id}/status  GET /v1/models/{id}/info  POST /v1/models/{id}/start  POST /v1/models/{id}/stop
        GET /v1/system/status  GET /v1/server/info  GET /v1/state  GET /v1/events  GET /v1/models/{id}/logs";
    let words: Vec<&str> = documented.split_whitespace().collect();
    for pair in words.chunks(2) {
        let routed = ROUTES
            .iter()
            .any(|route| route.method.as_str().eq_ignore_ascii_case(pair[0]) && route.path == pair[1]);
        assert!(routed, "{} {}", pair[0], pair[1]);
    }
    // No GET changes anything (promise S3): every route that does is a POST of a class that web pages cannot reach, or is
    // inference.
    for route in ROUTES {
        assert!(
            route.method == Verb::Get || route.class != Class::Public,
            "{}",
            route.path
        );
    }
}
