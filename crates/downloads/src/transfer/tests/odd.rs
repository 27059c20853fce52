//! Origins that change, lie or answer oddly corrupt nothing (promise D2).

use super::*;

/// What a fault leads to when it never goes away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lasting {
    Whole,
    Origin,
    Network,
    Unauthorized,
    NotFound,
}

fn status(status: u16) -> OriginFault {
    OriginFault::Status {
        status,
        retry_after: None,
        body: String::new(),
    }
}

#[tokio::test]
async fn odd_origins_never_corrupt_the_result() {
    use Lasting::{Network, NotFound, Origin, Unauthorized, Whole};
    // Fault; lasting, with the hash published; lasting, without; passing once, must end whole.
    let table = [
        (OriginFault::Cut { after: 300 }, Whole, Whole, true),
        (OriginFault::Cut { after: 0 }, Network, Network, true),
        (OriginFault::WrongContentRange, Origin, Origin, true),
        (OriginFault::IgnoreRange, Whole, Whole, true),
        (OriginFault::LongBody { extra: 7 }, Origin, Origin, true),
        (OriginFault::ShortBody { missing: 7 }, Origin, Origin, true),
        (OriginFault::WrongContentLength { off_by: 3 }, Origin, Origin, true),
        (OriginFault::WrongContentLength { off_by: -3 }, Origin, Origin, true),
        (OriginFault::NewEtag, Whole, Origin, true),
        (OriginFault::NoEtag, Whole, Whole, true),
        (OriginFault::WeakEtag, Whole, Whole, true),
        (OriginFault::LoginPage, Origin, Origin, false),
        (status(401), Unauthorized, Unauthorized, false),
        (status(403), Unauthorized, Unauthorized, false),
        (status(404), NotFound, NotFound, false),
        (status(400), Origin, Origin, false),
        (status(416), Origin, Origin, true),
        (status(429), Origin, Origin, true),
        (status(500), Origin, Origin, true),
        (status(503), Origin, Origin, true),
        (OriginFault::Drop, Network, Network, true),
    ];
    for (fault, hashed, unhashed, passes) in table {
        for (published, want) in [(true, hashed), (false, unhashed)] {
            let what = format!("{fault:?}, published: {published}");
            let make = async || {
                if published {
                    Case::new(quick()).await
                } else {
                    Case::unpublished(quick()).await
                }
            };
            let case = make().await;
            case.origin.fault("model.bin", fault.clone());
            let got = match case.fetch().await {
                Ok(_) => {
                    case.assert_whole(&what);
                    Whole
                }
                Err(error) => {
                    case.assert_invisible(&what);
                    match error {
                        DownloadError::Origin(_) => Origin,
                        DownloadError::Network(_) => Network,
                        DownloadError::Unauthorized(_) => Unauthorized,
                        DownloadError::NotFound(_) => NotFound,
                        other => panic!("{what}: {other:?}"),
                    }
                }
            };
            assert_eq!(got, want, "{what}: {:?}", case.ranges());
            if matches!(got, Unauthorized | NotFound) {
                assert_eq!(case.origin.requests().len(), 1, "{what}: fails at once");
            }
            // The same in the middle of a download, for one answer only.
            let case = make().await;
            case.origin.fault_times("model.bin", 1, OriginFault::Cut { after: 700 });
            let stop = CancellationToken::new();
            let (_, ()) = tokio::join!(case.fetch_until(&stop), async {
                tokio::time::sleep(Duration::from_millis(3)).await;
                stop.cancel();
            });
            case.origin.clear_faults();
            case.origin.fault_times("model.bin", 1, fault.clone());
            let second = case.fetch().await;
            if passes {
                second.unwrap_or_else(|error| panic!("{what} once: {error}"));
                case.assert_whole(&what);
            } else if !case.file.path.exists() {
                case.origin.clear_faults();
                case.fetch().await.unwrap();
                case.assert_whole(&what);
            }
        }
    }
}

/// Answers every ranged request with 206 and what `answer` makes of the range: which bytes it names, and which it sends,
/// chunked, so that no length gives it away.
async fn liar(
    answer: impl Fn(std::ops::Range<usize>) -> (std::ops::Range<usize>, std::ops::Range<usize>),
) -> (String, impl Future<Output = ()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/model.bin", listener.local_addr().unwrap());
    let serve = async move {
        let bytes = content(0);
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = socket.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let Some(range) = request
                .split("range: bytes=")
                .nth(1)
                .and_then(|rest| rest.lines().next())
            else {
                continue;
            };
            let (start, end) = range.split_once('-').unwrap();
            let asked = start.parse().unwrap()..end.parse::<usize>().map_or(LENGTH, |end| LENGTH.min(end + 1));
            let (named, sent) = answer(asked);
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\nContent-Range: bytes {}-{}/{LENGTH}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n",
                named.start,
                named.end - 1,
                sent.len()
            );
            let sent = [head.as_bytes(), &bytes[sent], b"\r\n0\r\n\r\n"].concat();
            // Whoever hangs up has seen enough.
            let _ = socket.write_all(&sent).await;
        }
    };
    (url, serve)
}

#[tokio::test]
async fn parts_that_are_not_the_ones_asked_for_are_never_kept() {
    type Answer = fn(std::ops::Range<usize>) -> (std::ops::Range<usize>, std::ops::Range<usize>);
    let shifted: Answer = |asked| {
        let half = usize::midpoint(asked.start, asked.end)..asked.end;
        (half.clone(), half)
    };
    let longer: Answer = |asked| (asked.clone(), asked.start..LENGTH.min(asked.end + 50));
    let honest: Answer = |asked| (asked.clone(), asked);
    for (what, answer, whole) in [
        ("shifted", shifted, false),
        ("longer", longer, false),
        ("honest", honest, true),
    ] {
        let mut case = Case::unpublished(quick()).await;
        let (url, serve) = liar(answer).await;
        case.file.url = url.parse().unwrap();
        let fetched = tokio::select! {
            fetched = case.fetch() => fetched,
            () = serve => unreachable!(),
        };
        if whole {
            fetched.unwrap();
            case.assert_whole(what);
        } else {
            assert!(matches!(fetched, Err(DownloadError::Origin(_))), "{what}: {fetched:?}");
            case.assert_invisible(what);
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_fetched_as_it_is_now() {
    for after in [1, 999, 1000, 5000, 9999] {
        let mut case = Case::unpublished(Tuning {
            retries: 0,
            ..whole_at_once()
        })
        .await;
        case.origin.fault_times("model.bin", 1, OriginFault::Cut { after });
        case.fetch().await.unwrap_err();
        case.bytes = content(0x55);
        case.origin.add_file("/model.bin", case.bytes.clone());
        case.fetch().await.unwrap();
        case.assert_whole(&format!("changed after {after}"));
    }
}

#[tokio::test]
async fn a_file_of_another_size_than_published_is_refused() {
    let mut case = Case::new(quick()).await;
    case.file.size = Some(LENGTH as u64 + 1);
    assert!(matches!(case.fetch().await, Err(DownloadError::Origin(_))));
    case.assert_invisible("another size");
}

#[tokio::test]
async fn empty_files_are_files() {
    let mut case = Case::unpublished(quick()).await;
    case.bytes.clear();
    case.origin.add_file("/model.bin", Vec::new());
    case.fetch().await.unwrap();
    case.assert_whole("empty");
    case.file.size = Some(0);
    case.file.path.set_file_name("model2.bin");
    case.origin.clear_requests();
    case.fetch().await.unwrap();
    assert_eq!(case.origin.requests().len(), 0);
}
