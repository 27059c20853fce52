//! Routes, methods, origins and bodies as a client meets them, without an engine.

use http_api::{Class, Limits, ListenerRules, ROUTES, Verb};
use serde_json::json;

use crate::harness::{Server, Setup, call, get, post, raw, statuses};

#[tokio::test(flavor = "multi_thread")]
async fn roots_say_what_runs() {
    let server = Server::plain().await;
    let ollama = call(server.ollama, "GET", "/", &[("accept", "text/html")], "").await;
    assert_eq!(
        (ollama.status.as_u16(), ollama.text()),
        (200, "Ollama is running".into())
    );
    assert_eq!(ollama.header("content-type"), "text/plain; charset=utf-8");
    let head = call(server.ollama, "HEAD", "/", &[], "").await;
    assert_eq!(
        (head.status.as_u16(), head.body.len(), head.header("content-length")),
        (200, 0, "17")
    );
    for port in [server.lmstudio, server.management] {
        assert_eq!(get(port, "/").await.text(), "LlamaRunner is running");
        let browser = call(port, "GET", "/", &[("accept", "text/html,application/xhtml+xml")], "").await;
        assert_eq!((browser.status.as_u16(), browser.header("location")), (302, "/ui/"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_in_each_listeners_words() {
    let server = Server::plain().await;
    let table: [(_, &str, &str, u16, &str, &str); 12] = [
        (server.ollama, "GET", "/nothing", 404, "404 page not found", ""),
        (server.ollama, "GET", "/api/nothing", 404, "404 page not found", ""),
        (
            server.ollama,
            "GET",
            "/api/chat",
            405,
            "405 method not allowed",
            "POST, OPTIONS",
        ),
        (
            server.ollama,
            "DELETE",
            "/api/tags",
            405,
            "405 method not allowed",
            "GET, HEAD, OPTIONS",
        ),
        (
            server.ollama,
            "PUT",
            "/v1/models/a/b/start",
            405,
            "405 method not allowed",
            "POST, OPTIONS",
        ),
        (
            server.lmstudio,
            "GET",
            "/foo?x=1",
            404,
            r#"{"error":"Unexpected endpoint or method. (GET /foo?x=1)"}"#,
            "",
        ),
        (
            server.lmstudio,
            "GET",
            "/v1/chat/completions",
            405,
            r#"{"error":"Unexpected endpoint or method. (GET /v1/chat/completions)"}"#,
            "POST",
        ),
        (
            server.management,
            "GET",
            "/api/v0/nothing",
            404,
            r#"{"error":"Unexpected endpoint or method. (GET /api/v0/nothing)"}"#,
            "",
        ),
        (
            server.management,
            "GET",
            "/api/nothing",
            404,
            "{\"error\":\"There is no /api/nothing here",
            "",
        ),
        (
            server.management,
            "GET",
            "/v1/nothing",
            404,
            "There is no /v1/nothing here",
            "",
        ),
        (
            server.management,
            "POST",
            "/v1/models",
            405,
            "/v1/models does not answer POST",
            "GET, HEAD, OPTIONS",
        ),
        (
            server.management,
            "TRACE",
            "/health",
            405,
            "does not answer TRACE",
            "GET, HEAD, OPTIONS",
        ),
    ];
    for (port, method, path, status, body, allow) in table {
        let reply = call(port, method, path, &[], "").await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}");
        assert!(
            reply.text().starts_with(body)
                || (body.starts_with("There") || body.starts_with('/') || body.starts_with("does"))
                    && reply.text().contains(body),
            "{method} {path}: {}",
            reply.text()
        );
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
    }
    let text = get(server.ollama, "/nothing").await;
    assert_eq!(text.header("content-type"), "text/plain");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_studios_own_status_for_unknown_routes_on_request() {
    let mut setup = Setup::default();
    setup.settings.lmstudio_port.unknown_route_status = 200;
    let server = Server::start(setup).await;
    assert_eq!(get(server.lmstudio, "/foo").await.status, 200);
    assert_eq!(get(server.ollama, "/foo").await.status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailing_slashes() {
    let server = Server::plain().await;
    for (method, path, status, location) in [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("GET", "/api/tags/?a=b", 301, "/api/tags?a=b"),
        ("POST", "/api/chat/", 307, "/api/chat"),
        ("GET", "/v1/models/", 404, ""),
        ("GET", "//api/tags", 404, ""),
    ] {
        let reply = call(server.ollama, method, path, &[], "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("location")),
            (status, location),
            "{method} {path}"
        );
    }
    server.stop().await;
}

/// `OPTIONS` and `HEAD` on every route, from no page, our own page, another program's page and a stranger's page.
#[tokio::test(flavor = "multi_thread")]
async fn options_head_and_origins_on_every_route() {
    let server = Server::plain().await;
    let gui = format!("http://{}", server.management);
    for route in ROUTES {
        let path = route.path.replace("{id}", "tiny-chat").replace("{file}", "index.html");
        let verb = route.method.to_http();
        for port in [server.ollama, server.lmstudio, server.management] {
            // LM Studio's port answers no page unless it is told to.
            let answers_pages = port != server.lmstudio;
            let options = call(port, "OPTIONS", &path, &[], "").await;
            assert_eq!(options.status, if answers_pages { 204 } else { 405 }, "{path}");
            assert!(
                options.header("allow").contains(verb.as_str()),
                "{path}: {}",
                options.header("allow")
            );
            assert_eq!(options.header("access-control-allow-origin"), "");
            let open = matches!(route.class, Class::Inference | Class::Public);
            for (origin, allowed) in [
                (gui.as_str(), true),
                ("http://localhost:3000", open),
                ("https://evil.example", false),
                ("null", false),
            ] {
                let headers = [("origin", origin), ("access-control-request-method", verb.as_str())];
                let preflight = call(port, "OPTIONS", &path, &headers, "").await;
                let status = match (allowed, answers_pages) {
                    (false, _) => 403,
                    (true, true) => 204,
                    (true, false) => 405,
                };
                assert_eq!(preflight.status, status, "{path} {origin}");
                let echoed = if allowed && answers_pages { origin } else { "" };
                assert_eq!(
                    preflight.header("access-control-allow-origin"),
                    echoed,
                    "{path} {origin}"
                );
                assert_eq!(preflight.header("access-control-allow-credentials"), "");
                assert_eq!(preflight.header("vary"), "Origin");
            }
            if route.method == Verb::Get && !path.ends_with("/events") {
                let head = call(port, "HEAD", &path, &[], "").await;
                assert_ne!(head.status, 405, "{path}");
                assert!(head.body.is_empty());
            }
            let stranger = call(port, verb.as_str(), &path, &[("origin", "https://evil.example")], "{}").await;
            assert_eq!(stranger.status, 403, "{path}");
            assert_eq!(stranger.header("access-control-allow-origin"), "");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_over_the_wire() {
    let server = Server::plain().await;
    for (host, status) in [("localhost", 200), ("evil.example", 403), ("a/b", 400), ("", 400)] {
        let reply = call(server.ollama, "GET", "/api/version", &[("host", host)], "").await;
        assert_eq!(reply.status.as_u16(), status, "{host}");
    }
    assert_eq!(
        statuses(&raw(server.ollama, b"GET /api/version HTTP/1.1\r\nConnection: close\r\n\r\n").await),
        [400]
    );
    assert_eq!(
        statuses(
            &raw(
                server.ollama,
                b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            .await
        ),
        [400]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_every_answer() {
    let server = Server::plain().await;
    for (path, given) in [
        ("/health", Some("abc-1.2:3_x")),
        ("/nothing", Some("abc")),
        ("/api/version", None),
        ("/health", Some("bad id")),
    ] {
        let headers: Vec<(&str, &str)> = given.map(|id| ("x-request-id", id)).into_iter().collect();
        let reply = call(server.ollama, "GET", path, &headers, "").await;
        let id = reply.header("x-request-id");
        match given {
            Some(id_given) if !id_given.contains(' ') => assert_eq!(id, id_given),
            _ => assert!(id.len() > 4 && !id.contains(' '), "{id}"),
        }
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        assert_eq!(reply.header("server"), "");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_and_the_server_lives() {
    let mut setup = Setup::default();
    setup.settings.max_body = 1 << 20;
    let server = Server::start(setup).await;
    let deep = format!(
        "{{\"model\":\"tiny-chat\",\"messages\":{}{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let posts = [
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "/api/show",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/api/v0/chat/completions",
    ];
    for path in posts {
        for body in [
            deep.as_bytes(),
            b"",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe",
            b"{\"model\":\"\\ud800\"}",
            b"{\"model\":1}",
            b"{\"model\":\"nope\",\"keep_alive\":1e999}",
        ] {
            let reply = call(server.ollama, "POST", path, &[], body.to_vec()).await;
            assert!(
                reply.status.is_client_error(),
                "{path} {:?}: {} {}",
                &body[..body.len().min(40)],
                reply.status,
                reply.text()
            );
            assert!(!reply.text().is_empty());
        }
        for encoding in ["gzip", "br", "zstd", "gzip, identity"] {
            let reply = call(server.ollama, "POST", path, &[("content-encoding", encoding)], "{}").await;
            assert_eq!(reply.status, 415, "{path} {encoding}");
        }
        let large = call(server.ollama, "POST", path, &[], vec![b' '; (1 << 20) + 1]).await;
        assert_eq!(large.status, 413, "{path}");
        let chunked = [
            b"POST ".to_vec(),
            path.as_bytes().to_vec(),
            b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n"
                .to_vec(),
            vec![b' '; 0x20_0000],
            b"\r\n0\r\n\r\n".to_vec(),
        ]
        .concat();
        assert_eq!(statuses(&raw_lossy(server.ollama, &chunked).await), [413], "{path}");
    }
    assert_eq!(get(server.ollama, "/health").await.status, 200);
    server.stop().await;
}

/// Like `raw`, for a server that may close before everything was written.
async fn raw_lossy(to: std::net::SocketAddr, bytes: &[u8]) -> String {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let mut answer = Vec::new();
    let write = tokio::io::AsyncWriteExt::write_all(&mut writer, bytes);
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer);
    let _ = crate::harness::patiently("the answer", async { tokio::join!(write, read) }).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_as_problem_documents_on_request() {
    let server = Server::plain().await;
    let reply = call(
        server.management,
        "GET",
        "/v1/models/nope/info",
        &[("accept", "application/problem+json")],
        "",
    )
    .await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert_eq!(reply.json()["status"], 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_for_clients_of_this_machine_only_when_set() {
    let server = Server::plain().await;
    for _ in 0..150 {
        assert_eq!(get(server.ollama, "/api/version").await.status, 200);
    }
    server.stop().await;
    let mut setup = Setup::default();
    setup.settings.ollama = ListenerRules {
        local: Limits {
            per_minute: Some(5),
            ..Limits::default()
        },
        ..ListenerRules::default()
    };
    let server = Server::start(setup).await;
    for left in (0..5).rev() {
        let reply = get(server.ollama, "/api/version").await;
        assert_eq!(
            reply.header("ratelimit").split(';').nth(1),
            Some(format!("r={left}").as_str())
        );
    }
    let ollama = get(server.ollama, "/api/version").await;
    assert_eq!(ollama.status, 429);
    assert!(
        ollama.json()["error"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("rate limit exceeded"),
        "{}",
        ollama.text()
    );
    assert!(ollama.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(ollama.header("ratelimit-policy"), "\"default\";q=5;w=60");
    let openai = get(server.ollama, "/v1/models").await;
    assert_eq!(
        (openai.status.as_u16(), &openai.json()["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    let gui = format!("http://{}", server.management);
    assert_eq!(
        call(server.ollama, "GET", "/v1/models", &[("origin", &gui)], "")
            .await
            .status,
        200,
        "the window is not counted"
    );
    assert_eq!(
        get(server.ollama, "/health").await.status,
        200,
        "health answers when inference is limited"
    );
    assert_eq!(
        get(server.lmstudio, "/v1/models").await.status,
        200,
        "another listener has its own limits"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_and_its_policy() {
    let server = Server::plain().await;
    let page = get(server.management, "/ui/").await;
    let bare = get(server.management, "/ui").await;
    assert!(
        bare.status.is_redirection() && bare.header("location") == "/ui/",
        "{bare:?}"
    );
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<html"), "{}", page.text());
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'self'")
            && !policy.contains("unsafe")
            && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(page.header("cache-control"), "no-cache");
    let deep = get(server.management, "/ui/models/tiny").await;
    assert_eq!(
        (deep.status.as_u16(), deep.text()),
        (200, page.text()),
        "addresses of the page itself"
    );
    assert_eq!(get(server.management, "/ui/assets/missing.js").await.status, 404);
    for path in [
        "/ui/../Cargo.toml",
        "/ui/..%2f..%2fCargo.toml",
        "/ui/%2e%2e/%2e%2e/etc/passwd",
        "/ui//etc/passwd",
    ] {
        let reply = get(server.management, path).await;
        assert!(
            !reply.text().contains("[package]") && !reply.text().contains("root:"),
            "{path}: {}",
            reply.text()
        );
    }
    let tag = page.header("etag").to_owned();
    assert_eq!(
        call(server.management, "GET", "/ui/", &[("if-none-match", &tag)], "")
            .await
            .status,
        304
    );
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(call(server.management, "GET", "/ui/", &link, "").await.status, 200);
    assert_eq!(call(server.management, "GET", "/v1/state", &link, "").await.status, 403);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_state_without_an_engine() {
    let server = Server::plain().await;
    let state = get(server.management, "/v1/state").await.json();
    assert_eq!(state["config"]["ok"], true);
    assert_eq!(state["engine"]["available"], false);
    assert_eq!(state["listeners"]["ollama"]["address"], server.ollama.to_string());
    let openapi = get(server.management, "/openapi.json").await.json();
    assert_eq!(
        openapi["paths"].as_object().unwrap().len(),
        ROUTES
            .iter()
            .map(|route| route.path)
            .collect::<std::collections::HashSet<_>>()
            .len()
    );
    let missing = post(
        server.ollama,
        "/v1/chat/completions",
        &json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]}),
    )
    .await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_settings_count_from_the_next_request() {
    let server = Server::plain().await;
    let page = [("origin", "https://chat.example")];
    assert_eq!(call(server.ollama, "GET", "/api/tags", &page, "").await.status, 403);
    let mut settings = (*server.state.settings()).clone();
    settings.ollama.allowed_origins = vec!["https://chat.example".into()];
    server.state.apply(settings);
    let reply = call(server.ollama, "GET", "/api/tags", &page, "").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("access-control-allow-origin")),
        (200, "https://chat.example")
    );
    assert_eq!(call(server.ollama, "GET", "/v1/state", &page, "").await.status, 403);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_500_and_the_server_lives() {
    let server = Server::start(Setup {
        panics: true,
        ..Setup::default()
    })
    .await;
    let reply = get(server.management, "/v1/state").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["error"]["type"]),
        (500, &json!("server_error")),
        "{}",
        reply.text()
    );
    assert!(!reply.text().contains("fault of ours"), "{}", reply.text());
    assert_eq!(get(server.management, "/health").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_in_the_form_of_who_asks() {
    let server = Server::plain().await;
    let stranger = [("origin", "https://evil.example")];
    assert_eq!(
        call(server.ollama, "POST", "/api/chat", &stranger, "{}").await.text(),
        "",
        "Ollama says nothing"
    );
    let openai = call(server.ollama, "POST", "/v1/chat/completions", &stranger, "{}").await;
    assert_eq!(openai.json()["error"]["code"], "forbidden_origin");
    let host = call(server.ollama, "GET", "/api/tags", &[("host", "a/b")], "").await;
    assert!(host.json()["error"].as_str().is_some());
    server.stop().await;
}
