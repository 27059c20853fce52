use std::net::SocketAddr;

use super::*;
use crate::routes::ROUTES;
use crate::state::ListenerView;

const GUI: &str = "http://127.0.0.1:5800";

struct Case {
    settings: ApiSettings,
    listeners: ListenersView,
}

impl Case {
    fn new() -> Self {
        let address: SocketAddr = "127.0.0.1:5800".parse().unwrap();
        let management = ListenerView {
            enabled: true,
            address: Some(address),
            problem: None,
        };
        Self {
            settings: ApiSettings::default(),
            listeners: ListenersView {
                management,
                ..ListenersView::default()
            },
        }
    }

    fn check(
        &self,
        flavour: Flavour,
        class: Class,
        method: &Method,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Refusal> {
        self.named(flavour, class, method, headers).map(|_| ())
    }

    /// The origin that the answer names.
    fn named(
        &self,
        flavour: Flavour,
        class: Class,
        method: &Method,
        headers: &[(&'static str, &str)],
    ) -> Result<Option<HeaderValue>, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let uri = Uri::from_static("/x");
        check(&Asked {
            method,
            uri: &uri,
            headers: &map,
            class,
            flavour,
            settings: &self.settings,
            listeners: &self.listeners,
            machine_name: Some("mybox"),
        })
    }

    fn hosts(&self, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        self.check(Flavour::Ollama, Class::Inference, &Method::GET, headers)
    }
}

#[test]
fn host_table() {
    let mut case = Case::new();
    case.settings.ollama.allowed_hosts = vec!["models.lan".into()];
    let ok = [
        "localhost",
        "localhost:11434",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:11434",
        "[::1]",
        "[::1]:11434",
        "192.168.1.7:11434",
        "mybox",
        "MYBOX:11434",
        "models.lan",
        "models.lan:80",
        "0.0.0.0:11434",
    ];
    for host in ok {
        assert_eq!(case.hosts(&[("host", host)]), Ok(()), "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "0x7f.1",
        "mybox.evil",
        "localhost.",
        "a.localhost",
    ] {
        assert_eq!(case.hosts(&[("host", host)]), Err(Refusal::Host), "{host}");
    }
    for host in [
        "",
        " ",
        "a/b",
        "a?b",
        "a#b",
        "user@localhost",
        "local host",
        "localhost:",
        "localhost:x",
        "localhost:99999",
        "[::1",
        "[::1]x",
        "a,b",
        "::1",
    ] {
        assert_eq!(case.hosts(&[("host", host)]), Err(Refusal::BadHost), "{host:?}");
    }
    assert_eq!(case.hosts(&[]), Err(Refusal::BadHost));
    assert_eq!(
        case.hosts(&[("host", "localhost"), ("host", "localhost")]),
        Err(Refusal::BadHost)
    );
    for (name, value) in [("origin", "http://localhost:3000"), ("sec-fetch-site", "none")] {
        assert_eq!(
            case.hosts(&[("host", "0.0.0.0"), (name, value)]),
            Err(Refusal::Host),
            "{name}"
        );
    }
}

#[test]
fn an_absolute_target_must_agree_with_host() {
    let case = Case::new();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:1"));
    for (uri, expected) in [
        ("http://localhost:1/x", Ok(None)),
        ("http://127.0.0.1:1/x", Err(Refusal::BadHost)),
    ] {
        let uri: Uri = uri.parse().unwrap();
        let asked = Asked {
            method: &Method::GET,
            uri: &uri,
            headers: &headers,
            class: Class::Inference,
            flavour: Flavour::Ollama,
            settings: &case.settings,
            listeners: &case.listeners,
            machine_name: None,
        };
        assert_eq!(check(&asked), expected);
    }
}

/// Origins and fetch metadata × every route: what each class may be asked by a web page.
#[test]
fn origin_table_over_every_route() {
    let case = Case::new();
    let loopback = [
        "http://localhost",
        "http://localhost:3000",
        "https://127.0.0.1:8443",
        "http://[::1]:3000",
    ];
    let gui = [
        GUI,
        "http://localhost:5800",
        "http://[::1]:5800",
        "tauri://localhost",
        "http://tauri.localhost",
        "https://tauri.localhost",
    ];
    let never = [
        "null",
        "file://",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://evil.example:5800",
        "chrome-extension://abc",
        "http://127.0.0.1.evil.example",
        "http://192.168.1.9",
        "app://x",
        "http://localhost:3000/path",
        "HTTP://",
        "",
        "*",
    ];
    for flavour in [Flavour::Ollama, Flavour::LmStudio, Flavour::Management] {
        for route in ROUTES {
            let method = route.method.to_http();
            let with = |headers: &[(&'static str, &str)]| {
                let mut all = vec![("host", "127.0.0.1:11434")];
                all.extend_from_slice(headers);
                case.check(flavour, route.class, &method, &all)
            };
            let what = format!("{flavour:?} {method} {}", route.path);
            for origin in gui {
                assert_eq!(
                    with(&[("origin", origin), ("sec-fetch-site", "cross-site")]),
                    Ok(()),
                    "{what} {origin}"
                );
            }
            let open = matches!(route.class, Class::Inference | Class::Public);
            for origin in loopback {
                let expected = if open { Ok(()) } else { Err(Refusal::Origin) };
                assert_eq!(
                    with(&[("origin", origin), ("sec-fetch-site", "same-site")]),
                    expected,
                    "{what} {origin}"
                );
            }
            for origin in never {
                assert_eq!(with(&[("origin", origin)]), Err(Refusal::Origin), "{what} {origin}");
                assert_eq!(
                    with(&[("origin", origin), ("sec-fetch-site", "same-origin")]),
                    Err(Refusal::Origin),
                    "{what} {origin}"
                );
            }
            assert_eq!(
                with(&[("origin", GUI), ("origin", GUI)]),
                Err(Refusal::Origin),
                "{what} two origins"
            );
            assert_eq!(with(&[]), Ok(()), "{what} curl");
            assert_eq!(with(&[("sec-fetch-site", "same-origin")]), Ok(()), "{what} same-origin");
            for site in ["cross-site", "same-site", "future-word"] {
                for mode in ["no-cors", "cors", "websocket"] {
                    assert_eq!(
                        with(&[("sec-fetch-site", site), ("sec-fetch-mode", mode)]),
                        Err(Refusal::Origin),
                        "{what} {site} {mode}"
                    );
                }
                let navigation = with(&[
                    ("sec-fetch-site", site),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ]);
                let expected = if route.class == Class::UiShell {
                    Ok(())
                } else {
                    Err(Refusal::Origin)
                };
                assert_eq!(navigation, expected, "{what} {site} navigation");
                let frame = with(&[
                    ("sec-fetch-site", site),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ]);
                assert_eq!(frame, Err(Refusal::Origin), "{what} {site} frame");
            }
        }
    }
}

#[test]
fn configured_origins() {
    let mut case = Case::new();
    case.settings.ollama.allowed_origins = vec![
        "https://chat.example".into(),
        "chrome-extension://*".into(),
        "null".into(),
    ];
    case.settings.management.allowed_origins = vec!["https://admin.example".into()];
    let check = |flavour, class, origin| {
        case.check(
            flavour,
            class,
            &Method::POST,
            &[("host", "localhost"), ("origin", origin)],
        )
        .is_ok()
    };
    assert!(check(Flavour::Ollama, Class::Inference, "https://chat.example"));
    assert!(check(Flavour::Ollama, Class::Inference, "chrome-extension://abcdef"));
    assert!(check(Flavour::Ollama, Class::Inference, "null"));
    assert!(!check(Flavour::LmStudio, Class::Inference, "https://chat.example"));
    assert!(!check(Flavour::Ollama, Class::Management, "https://chat.example"));
    assert!(check(Flavour::Ollama, Class::Management, "https://admin.example"));
    assert!(!check(Flavour::Ollama, Class::Inference, "https://admin.example"));
}

#[test]
fn lm_studio_cors_switch_opens_inference_only() {
    let mut case = Case::new();
    case.settings.lmstudio_port.cors = true;
    let page = [("host", "localhost"), ("origin", "https://any.example")];
    assert!(
        case.check(Flavour::LmStudio, Class::Inference, &Method::POST, &page)
            .is_ok()
    );
    assert!(
        case.check(Flavour::LmStudio, Class::Management, &Method::POST, &page)
            .is_err()
    );
    assert!(
        case.check(Flavour::Ollama, Class::Inference, &Method::POST, &page)
            .is_err()
    );
}

#[test]
fn origins_that_answers_name() {
    let mut case = Case::new();
    case.settings.lmstudio.allowed_origins = vec!["https://chat.example".into()];
    let named = |case: &Case, flavour, origin: &str| {
        let page = [("host", "localhost"), ("origin", origin)];
        let named = case.named(flavour, Class::Inference, &Method::POST, &page).unwrap();
        named.map(|origin| origin.to_str().unwrap().to_owned())
    };
    let near = "http://localhost:3000";
    assert_eq!(named(&case, Flavour::Ollama, near).as_deref(), Some(near));
    assert_eq!(named(&case, Flavour::LmStudio, near), None);
    assert_eq!(named(&case, Flavour::LmStudio, GUI), None);
    let listed = "https://chat.example";
    assert_eq!(named(&case, Flavour::LmStudio, listed).as_deref(), Some(listed));
    case.settings.lmstudio_port.cors = true;
    for origin in [near, listed, "null"] {
        assert_eq!(
            named(&case, Flavour::LmStudio, origin).as_deref(),
            Some("*"),
            "{origin}"
        );
    }
    assert_eq!(named(&case, Flavour::Ollama, near).as_deref(), Some(near));
}

#[test]
fn patterns() {
    for (pattern, origin, expected) in [
        ("https://a.example", "https://a.example", true),
        ("https://a.example/", "https://A.example", true),
        ("https://a.example", "https://a.example.evil", false),
        ("https://*.a.example", "https://x.a.example", true),
        ("https://*.a.example", "https://a.example", false),
        ("http://localhost:*", "http://localhost:3000", true),
        ("*", "https://x", true),
        ("*", "null", false),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxc", false),
        ("ab*ba", "aba", false),
    ] {
        assert_eq!(matches_pattern(pattern, origin), expected, "{pattern} {origin}");
    }
}
