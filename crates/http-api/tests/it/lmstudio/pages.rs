//! Web pages and LM Studio's port (LM Studio contract 9.2).

use crate::harness::{Server, call};

#[tokio::test(flavor = "multi_thread")]
async fn pages_on_lm_studios_port() {
    let server = Server::plain().await;
    let asks = [
        ("origin", "https://chat.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-own, content-type"),
    ];
    let path = "/v1/chat/completions";
    let near = call(
        server.lmstudio,
        "OPTIONS",
        path,
        &[("origin", "http://localhost:3000")],
        "",
    )
    .await;
    assert_eq!(
        (near.status.as_u16(), near.header("allow"), near.text()),
        (
            405,
            "POST",
            r#"{"error":"Unexpected endpoint or method. (OPTIONS /v1/chat/completions)"}"#.to_owned()
        )
    );
    let cors = |headers: &http::HeaderMap| {
        let mut names = headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control"));
        names.next().is_some()
    };
    assert!(!cors(&near.headers));
    let page = [("origin", "http://localhost:3000")];
    let answer = call(server.lmstudio, "GET", "/lmstudio-greeting", &page, "").await;
    assert!(answer.status == 200 && !cors(&answer.headers), "{:?}", answer.headers);
    assert_eq!(call(server.lmstudio, "OPTIONS", path, &asks, "").await.status, 403);

    // One listed origin.
    let mut settings = (*server.state.settings()).clone();
    settings.lmstudio.allowed_origins = vec!["https://chat.example".into()];
    server.state.apply(settings.clone());
    let listed = call(server.lmstudio, "OPTIONS", path, &asks, "").await;
    assert_eq!(
        (listed.status.as_u16(), listed.header("access-control-allow-origin")),
        (204, "https://chat.example")
    );

    // Every origin: inference only, errors too.
    settings.lmstudio_port.cors = true;
    server.state.apply(settings);
    let any = [("origin", "https://any.example"), asks[1], asks[2]];
    let preflight = call(server.lmstudio, "OPTIONS", path, &any, "").await;
    assert_eq!(
        (
            preflight.status.as_u16(),
            preflight.header("access-control-allow-origin"),
            preflight.header("access-control-allow-methods"),
            preflight.header("access-control-allow-headers"),
        ),
        (204, "*", "GET, HEAD, POST, PUT, PATCH, DELETE", "x-own, content-type")
    );
    for (method, path, status) in [
        ("GET", "/lmstudio-greeting", 200),
        ("POST", path, 400),
        ("GET", "/foo", 404),
    ] {
        let answer = call(server.lmstudio, method, path, &any[..1], "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (status, "*"),
            "{path}"
        );
    }
    let managed = call(server.lmstudio, "GET", "/v1/state", &any[..1], "").await;
    assert_eq!(
        (managed.status.as_u16(), managed.header("access-control-allow-origin")),
        (403, "")
    );
    server.stop().await;
}
