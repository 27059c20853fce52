use testkit::{FakeOrigin, OriginFault};

use super::*;
use crate::Tuning;
use crate::transfer::tests::{quick, settings};

fn http(allow_private: bool, mirror: Option<&str>) -> Http {
    let mut settings = settings(Tuning {
        stall: Duration::from_millis(200),
        connect: Duration::from_millis(500),
        ..quick()
    });
    settings.allow_private_hosts = allow_private;
    if let Some(mirror) = mirror {
        settings.huggingface_base_url = mirror.to_owned();
    }
    Http::new(&settings)
}

async fn get(http: &Http, url: &str, headers: &HeaderMap) -> Result<Response, DownloadError> {
    http.send(Method::GET, &Url::parse(url).unwrap(), headers, None).await
}

fn canary() -> HeaderMap {
    HeaderMap::from_iter([
        (http::header::AUTHORIZATION, "Bearer canary".parse().unwrap()),
        (http::header::COOKIE, "canary".parse().unwrap()),
    ])
}

#[tokio::test]
async fn private_addresses_are_refused_in_every_notation() {
    let origin = FakeOrigin::start().await.unwrap();
    let port = origin.url().rsplit_once(':').unwrap().1.to_owned();
    origin.add_file("/secret", &b"secret"[..]);
    let http = http(false, None);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "printer.local",
        "169.254.169.254",
        "10.0.0.1",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
    ] {
        let error = get(&http, &format!("http://{host}:{port}/secret"), &HeaderMap::new())
            .await
            .unwrap_err();
        assert!(matches!(error, DownloadError::Refused(_)), "{host}: {error:?}");
    }
    for url in [
        "file:///etc/passwd",
        "ftp://example.com/x",
        "data:text/plain,x",
        "http://user:word@example.com/",
        "http://user@example.com/",
    ] {
        let error = get(&http, url, &HeaderMap::new()).await.unwrap_err();
        assert!(matches!(error, DownloadError::Refused(_)), "{url}: {error:?}");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_when_it_is_connected_to() {
    // The machine's own name resolves to a private or loopback address and is no literal.
    let name = std::fs::read_to_string("/etc/hostname")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let resolved: Vec<_> = match tokio::net::lookup_host((name.as_str(), 9)).await {
        Ok(addresses) => addresses.collect(),
        Err(_) => Vec::new(),
    };
    if resolved.is_empty() || resolved.iter().all(|address| address::is_public(address.ip())) {
        eprintln!("skipped: this machine's name leads to no private address");
        return;
    }
    let error = get(&http(false, None), &format!("http://{name}:9/"), &HeaderMap::new())
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn the_mirror_is_exempt_and_where_it_redirects_to_is_not() {
    let origin = FakeOrigin::start().await.unwrap();
    let http = http(false, Some(&origin.url()));
    let plain = origin.add_file("/here", &b"x"[..]);
    let away = origin.add_redirected_file("/away", &b"x"[..]);
    assert_eq!(get(&http, &plain, &HeaderMap::new()).await.unwrap().status(), 200);
    let error = get(&http, &away, &HeaderMap::new()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Refused(_)), "{error:?}");
    assert!(origin.requests().iter().all(|r| r.host == testkit::OriginHost::Origin));
}

#[tokio::test]
async fn credentials_go_to_their_own_host_alone() {
    let origin = FakeOrigin::start().await.unwrap();
    let url = origin.add_redirected_file("/file", &b"x"[..]);
    for status in [301, 302, 303, 307, 308] {
        origin.clear_faults();
        origin.clear_requests();
        // There and back: the way back to the first host may carry them again, the second host never sees them.
        let to = format!("{}/stop", origin.cdn_url());
        origin.fault("/start", OriginFault::Redirect { status, to });
        origin.fault(
            "/stop",
            OriginFault::Redirect {
                status,
                to: url.clone(),
            },
        );
        let http = http(true, None);
        let answer = get(&http, &format!("{}/start", origin.url()), &canary()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(origin.leaks().len(), 0, "{status}: {:?}", origin.leaks());
        let requests = origin.requests();
        assert_eq!(requests.len(), 4, "{status}");
        assert_eq!(requests[0].header("authorization"), Some("Bearer canary"));
    }
}

#[tokio::test]
async fn redirects_end() {
    let origin = FakeOrigin::start().await.unwrap();
    let url = origin.add_file("/loop", &b"x"[..]);
    origin.fault(
        "/loop",
        OriginFault::Redirect {
            status: 302,
            to: url.clone(),
        },
    );
    let error = get(&http(true, None), &url, &HeaderMap::new()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Origin(_)), "{error:?}");
    assert_eq!(origin.requests().len(), MAX_REDIRECTS + 1);
}

#[tokio::test]
async fn a_redirect_to_another_scheme_is_not_followed() {
    let origin = FakeOrigin::start().await.unwrap();
    let url = origin.add_file("/file", &b"x"[..]);
    for to in ["file:///etc/passwd", "gopher://x/", "http://user:word@127.0.0.1/"] {
        origin.clear_faults();
        origin.fault(
            "/file",
            OriginFault::Redirect {
                status: 302,
                to: to.into(),
            },
        );
        let error = get(&http(true, None), &url, &HeaderMap::new()).await.unwrap_err();
        assert!(matches!(error, DownloadError::Refused(_)), "{to}: {error:?}");
    }
}

#[tokio::test]
async fn messages_show_no_signed_address() {
    let http = http(true, None);
    let error = get(&http, "http://127.0.0.1:9/x?signature=canary", &HeaderMap::new())
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Network(_)));
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn a_silent_body_and_a_long_one_end() {
    let origin = FakeOrigin::start().await.unwrap();
    let url = origin.add_file("/file", vec![7; 5000]);
    let http = http(true, None);
    let answer = get(&http, &url, &HeaderMap::new()).await.unwrap();
    assert!(matches!(answer.bytes(4999).await, Err(DownloadError::Origin(_))));
    origin.fault("/file", OriginFault::Stall { after: 10 });
    let answer = get(&http, &url, &HeaderMap::new()).await.unwrap();
    assert!(matches!(answer.bytes(5000).await, Err(DownloadError::Network(_))));
}
