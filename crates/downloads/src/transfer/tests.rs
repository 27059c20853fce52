use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use http::HeaderMap;
use ollama_store::Digest;
use tempfile::TempDir;
use testkit::{FakeOrigin, OriginFault};

use super::*;
use crate::DownloadSettings;

/// Not a divisor of anything below.
const LENGTH: usize = 10_007;

/// Bytes that differ at every place, so that a shifted piece shows.
fn content(seed: u8) -> Vec<u8> {
    (0..LENGTH).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

pub(crate) fn quick() -> Tuning {
    Tuning {
        part_size: 1000,
        parts_at_once: 3,
        retries: 4,
        back_off: Duration::from_millis(1),
        back_off_max: Duration::from_millis(5),
        stall: Duration::from_millis(300),
        connect: Duration::from_secs(5),
        disk_reserve: 0,
        save_every: Duration::from_millis(5),
    }
}

pub(crate) fn settings(tuning: Tuning) -> DownloadSettings {
    DownloadSettings {
        models_dir: PathBuf::new(),
        ollama_store: PathBuf::new(),
        max_parallel: 3,
        bandwidth_limit: None,
        huggingface_base_url: "https://huggingface.co".into(),
        ollama_registry_base_url: "https://registry.ollama.ai".into(),
        allow_private_hosts: true,
        resume_on_start: true,
        hub_token: None,
        tuning,
    }
}

struct Case {
    origin: FakeOrigin,
    dir: TempDir,
    cx: Context,
    bytes: Vec<u8>,
    file: PlannedFile,
}

impl Case {
    /// A file at the origin, its size and hash published.
    async fn new(tuning: Tuning) -> Self {
        let origin = FakeOrigin::start().await.unwrap();
        let bytes = content(0);
        let url = origin.add_file("/model.bin", bytes.clone()).parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = PlannedFile {
            url,
            headers: HeaderMap::new(),
            sha256: Some(Digest::of(&bytes)),
            size: Some(LENGTH as u64),
            path: dir.path().join("org/repo/model.bin"),
            label: "model.bin".into(),
        };
        let cx = Context {
            http: Http::new(&settings(tuning.clone())),
            tuning,
            throttle: Arc::new(Throttle::new(None)),
            disk_free: Arc::new(|_| None),
        };
        Self {
            origin,
            dir,
            cx,
            bytes,
            file,
        }
    }

    /// Neither hash nor size published.
    async fn unpublished(tuning: Tuning) -> Self {
        let mut case = Self::new(tuning).await;
        (case.file.sha256, case.file.size) = (None, None);
        case
    }

    async fn fetch(&self) -> Result<Fetched, DownloadError> {
        self.fetch_until(&CancellationToken::new()).await
    }

    async fn fetch_until(&self, stop: &CancellationToken) -> Result<Fetched, DownloadError> {
        let progress = Progress::new(self.file.size);
        let limit = Duration::from_mins(1);
        tokio::time::timeout(limit, fetch(&self.cx, self.dir.path(), &self.file, &progress, stop))
            .await
            .expect("it ends")
    }

    /// The file is there, and it is the right one, and nothing unfinished is left beside it.
    fn assert_whole(&self, what: &str) {
        assert!(
            std::fs::read(&self.file.path).unwrap() == self.bytes,
            "{what}: other bytes"
        );
        assert_eq!(self.names(), ["model.bin"], "{what}");
    }

    fn assert_invisible(&self, what: &str) {
        assert!(!self.file.path.exists(), "{what}: visible");
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.file.path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.origin.requests();
        requests.iter().map(|r| r.range().map(str::to_owned)).collect()
    }
}

/// Every hundredth and the edges.
fn cuts() -> Vec<u64> {
    let n = LENGTH as u64;
    let mut cuts: Vec<u64> = (0..100).map(|percent| n * percent / 100).collect();
    cuts.extend([1, n - 1, n]);
    cuts
}

fn whole_at_once() -> Tuning {
    Tuning {
        part_size: 1 << 20,
        ..quick()
    }
}

#[tokio::test]
async fn a_cut_small_file_goes_on_where_it_was_cut() {
    for after in cuts() {
        let case = Case::new(whole_at_once()).await;
        case.origin.fault_times("model.bin", 1, OriginFault::Cut { after });
        assert_eq!(
            case.fetch().await.unwrap(),
            Fetched {
                verified: true,
                present: false
            }
        );
        case.assert_whole(&format!("cut at {after}"));
        let mut ranges = case.ranges();
        ranges.dedup();
        let requests = case.origin.requests();
        let continuing = requests.iter().filter(|request| request.range().is_some());
        assert!(
            continuing
                .into_iter()
                .all(|r| r.header("if-range").is_some_and(|tag| tag.starts_with('"')))
        );
        let end = LENGTH - 1;
        let rest = Some(format!("bytes={after}-{end}"));
        let want = match after {
            0 => vec![None],
            after if after >= LENGTH as u64 => vec![None],
            _ => vec![None, rest],
        };
        assert_eq!(ranges, want, "cut at {after}");
    }
}

#[tokio::test]
async fn cut_parts_go_on_where_they_were_cut() {
    for after in [0, 1, 499, 999, 1000] {
        let case = Case::new(quick()).await;
        case.origin.fault_times("model.bin", 7, OriginFault::Cut { after });
        case.fetch().await.unwrap();
        case.assert_whole(&format!("parts cut at {after}"));
    }
}

#[tokio::test]
async fn a_life_that_ended_anywhere_is_continued_by_the_next() {
    for after in cuts() {
        let mut case = Case::new(Tuning {
            retries: 0,
            ..whole_at_once()
        })
        .await;
        case.origin.fault_times("model.bin", 1, OriginFault::Cut { after });
        let first = case.fetch().await;
        if after < LENGTH as u64 {
            assert!(matches!(first, Err(DownloadError::Network(_))), "{after}: {first:?}");
            case.assert_invisible(&format!("cut at {after}"));
        }
        case.origin.clear_requests();
        // The next life knows only what is on disk, and its mirror has another address.
        case.file.url = case
            .origin
            .add_file("/mirror/model.bin", case.bytes.clone())
            .parse()
            .unwrap();
        case.fetch().await.unwrap();
        case.assert_whole(&format!("ended at {after}"));
        let start = format!("bytes={after}-");
        if after > 0 && after < LENGTH as u64 {
            assert!(
                case.ranges()[0].as_ref().unwrap().starts_with(&start),
                "{after}: {:?}",
                case.ranges()
            );
        }
    }
}

#[tokio::test]
async fn without_a_hash_only_the_origins_own_word_allows_to_go_on() {
    for (fault, resumed) in [
        (None, true),
        (Some(OriginFault::NoEtag), false),
        (Some(OriginFault::WeakEtag), false),
    ] {
        let case = Case::unpublished(whole_at_once()).await;
        if let Some(fault) = fault.clone() {
            case.origin.fault("model.bin", fault);
        }
        case.origin
            .fault_times("model.bin", 1, OriginFault::Cut { after: 5000 });
        let fetched = case.fetch().await.unwrap();
        assert!(!fetched.verified);
        case.assert_whole(&format!("{fault:?}"));
        let from_5000 = case
            .ranges()
            .iter()
            .flatten()
            .any(|range| range.starts_with("bytes=5000-"));
        assert_eq!(from_5000, resumed, "{fault:?}: {:?}", case.ranges());
    }
}

#[tokio::test]
async fn a_wrong_byte_is_fetched_again_once_and_never_seen() {
    for at in [0, 1, 5003, LENGTH as u64 - 1] {
        let case = Case::new(whole_at_once()).await;
        case.origin.fault_times("model.bin", 1, OriginFault::FlipByte { at });
        case.fetch().await.unwrap();
        case.assert_whole(&format!("byte {at}"));
        assert_eq!(case.ranges(), [None, None], "from zero");

        let case = Case::new(whole_at_once()).await;
        case.origin.fault("model.bin", OriginFault::FlipByte { at });
        let error = case.fetch().await.unwrap_err();
        assert!(matches!(&error, DownloadError::Digest { want, .. } if *want == Digest::of(&case.bytes).to_string()));
        assert_eq!(case.names(), Vec::<String>::new());
        assert_eq!(case.origin.requests().len(), 2);
    }
}

#[tokio::test]
async fn without_a_hash_the_structure_of_a_model_is_checked() {
    let sound = gguf::craft::Craft::new()
        .text("general.architecture", "llama")
        .tensor("w", &[32], 0)
        .build();
    let mut short = sound.clone();
    short.truncate(sound.len() - 1);
    for (bytes, whole) in [(sound, true), (short, false), (b"not a model".to_vec(), false)] {
        let mut case = Case::unpublished(quick()).await;
        case.file.url = case.origin.add_file("/m.gguf", bytes).parse().unwrap();
        case.file.path.set_file_name("m.gguf");
        let fetched = case.fetch().await;
        if whole {
            assert!(!fetched.unwrap().verified);
        } else {
            assert!(matches!(fetched, Err(DownloadError::Damaged(_))), "{fetched:?}");
            assert_eq!(case.names(), Vec::<String>::new());
        }
    }
}

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

#[tokio::test]
async fn a_silent_connection_is_made_anew_free_of_charge() {
    for after in [0, 1000] {
        let case = Case::new(Tuning {
            retries: 0,
            stall: Duration::from_millis(100),
            ..whole_at_once()
        })
        .await;
        case.origin.fault_times("model.bin", 4, OriginFault::Stall { after });
        case.fetch().await.unwrap();
        case.assert_whole("stalled");
        assert_eq!(case.origin.requests().len(), 5);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let case = Case::new(whole_at_once()).await;
    let busy = OriginFault::Status {
        status: 429,
        retry_after: Some("1".into()),
        body: String::new(),
    };
    case.origin.fault_times("model.bin", 1, busy);
    let begin = Instant::now();
    case.fetch().await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    case.assert_whole("busy");
}

#[tokio::test]
async fn a_small_file_is_one_request_and_a_large_one_many_at_once() {
    let case = Case::new(whole_at_once()).await;
    case.fetch().await.unwrap();
    assert_eq!(case.ranges(), [None]);

    let case = Case::new(quick()).await;
    case.fetch().await.unwrap();
    case.assert_whole("parts");
    assert_eq!(case.ranges().len(), LENGTH.div_ceil(1000));

    let case = Case::unpublished(quick()).await;
    case.fetch().await.unwrap();
    case.assert_whole("parts of unknown size");
    assert_eq!(case.ranges().len(), LENGTH.div_ceil(1000));
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let case = Case::new(quick()).await;
    case.fetch().await.unwrap();
    case.origin.clear_requests();
    assert!(case.fetch().await.unwrap().present);
    assert_eq!(case.origin.requests().len(), 0);
    // Other bytes of the same length under this name are not the file.
    std::fs::write(&case.file.path, content(1)).unwrap();
    assert!(!case.fetch().await.unwrap().present);
    case.assert_whole("replaced");
}

#[tokio::test]
async fn a_partial_never_looks_complete_and_a_forged_sidecar_is_not_believed() {
    let case = Case::new(Tuning {
        retries: 0,
        ..whole_at_once()
    })
    .await;
    case.origin
        .fault_times("model.bin", 1, OriginFault::Cut { after: 4000 });
    case.fetch().await.unwrap_err();
    assert_eq!(case.names(), ["model.bin.partial", "model.bin.partial.json"]);
    // What lies there is as long as what came, and its address is nobody else's business.
    assert_eq!(
        std::fs::metadata(partial::data_path(&case.file.path)).unwrap().len(),
        4000
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(case.file.path.with_extension("bin.partial.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    let sidecar = partial::data_path(&case.file.path).with_extension("partial.json");
    let good = std::fs::read_to_string(&sidecar).unwrap();
    for forged in [
        good.replace("4000", "9000"),
        good.replace("[[0,4000]]", "[[4000,0]]"),
        good.replace("[[0,4000]]", "[[0,4000],[3000,5000]]"),
        good[..good.len() / 2].to_owned(),
        String::new(),
    ] {
        std::fs::write(&sidecar, &forged).unwrap();
        case.fetch().await.unwrap_or_else(|error| panic!("{forged}: {error}"));
        case.assert_whole(&forged);
        std::fs::rename(&case.file.path, partial::data_path(&case.file.path)).unwrap();
        std::fs::File::options()
            .write(true)
            .open(partial::data_path(&case.file.path))
            .unwrap()
            .set_len(4000)
            .unwrap();
    }
}

#[tokio::test]
async fn what_a_killed_life_left_beside_a_complete_file_goes() {
    let case = Case::new(quick()).await;
    case.fetch().await.unwrap();
    let left = |suffix: &str| {
        let mut path = case.file.path.clone().into_os_string();
        path.push(suffix);
        std::fs::write(path, "{").unwrap();
    };
    // Killed between the last two steps, and while noting.
    left(".partial.json");
    left(".partial.json.new");
    case.fetch().await.unwrap();
    case.assert_whole("there already");
    std::fs::remove_file(&case.file.path).unwrap();
    left(".partial.json.new");
    case.fetch().await.unwrap();
    case.assert_whole("fetched again");
}

#[tokio::test]
async fn a_stop_ends_it_soon_and_keeps_what_is_there() {
    let case = Case::new(quick()).await;
    case.origin
        .fault("model.bin", OriginFault::Slow { bytes_per_second: 4000 });
    let stop = CancellationToken::new();
    let (fetched, ()) = tokio::join!(case.fetch_until(&stop), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        stop.cancel();
    });
    assert_eq!(fetched, Err(DownloadError::Paused));
    case.assert_invisible("stopped");
    case.origin.clear_faults();
    case.origin.clear_requests();
    case.fetch().await.unwrap();
    case.assert_whole("stopped and continued");
    let mut again = 0;
    for range in case.ranges().into_iter().flatten() {
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        again += end.parse::<usize>().unwrap() + 1 - start.parse::<usize>().unwrap();
    }
    assert!(again < LENGTH, "{again} bytes were asked for again");
}

#[tokio::test]
async fn a_full_disk_stops_before_a_byte_is_fetched() {
    let mut case = Case::new(Tuning {
        disk_reserve: 500,
        ..quick()
    })
    .await;
    case.cx.disk_free = Arc::new(|_| Some(10_000));
    let missing = LENGTH as u64 + 500 - 10_000;
    assert_eq!(case.fetch().await, Err(DownloadError::DiskFull { missing }));
    assert_eq!(case.origin.requests().len(), 0);
    case.cx.disk_free = Arc::new(|_| Some(LENGTH as u64 + 500));
    case.fetch().await.unwrap();
    case.assert_whole("room");
}

#[tokio::test]
async fn a_disk_that_fills_up_stops_it_and_keeps_what_is_there() {
    let mut case = Case::new(Tuning {
        disk_reserve: 1000,
        ..quick()
    })
    .await;
    case.origin
        .fault("model.bin", OriginFault::Slow { bytes_per_second: 4000 });
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    case.cx.disk_free = Arc::new(move |_| {
        let look = counted.fetch_add(1, Ordering::Relaxed);
        Some(if look < 60 { 1 << 30 } else { 100 })
    });
    let error = case.fetch().await.unwrap_err();
    let DownloadError::DiskFull { missing } = error else {
        panic!("{error:?}")
    };
    assert!(missing > 900 && missing < LENGTH as u64 + 1000, "{missing}");
    case.assert_invisible("full");
    assert_eq!(case.names(), ["model.bin.partial", "model.bin.partial.json"]);
    case.origin.clear_faults();
    case.cx.disk_free = Arc::new(|_| None);
    case.fetch().await.unwrap();
    case.assert_whole("freed");
}

/// A disk of 64 KiB; needs the right to mount.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_really_full_disk_stops_it_and_keeps_what_is_there() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }
    let mut case = Case::new(quick()).await;
    case.bytes = content(0).repeat(20);
    case.file.url = case.origin.add_file("/big.bin", case.bytes.clone()).parse().unwrap();
    (case.file.sha256, case.file.size) = (Some(Digest::of(&case.bytes)), Some(case.bytes.len() as u64));
    let small = case.dir.path().join("org");
    std::fs::create_dir(&small).unwrap();
    let mount = |options: &str| {
        std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&small)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !mount("size=65536") {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    }
    let mounted = Mounted(small.clone());
    let error = case.fetch().await.unwrap_err();
    assert!(matches!(error, DownloadError::DiskFull { .. }), "{error:?}");
    case.assert_invisible("full");
    assert!(mount("remount,size=1048576"));
    case.origin.clear_requests();
    case.fetch().await.unwrap();
    case.assert_whole("grown");
    let again: usize = case.origin.requests().len();
    assert!(
        again < case.bytes.len().div_ceil(1000),
        "{again} requests: what was there was not used"
    );
    drop(mounted);
}

#[tokio::test]
async fn credentials_stay_with_the_first_host_in_every_request() {
    let mut case = Case::new(quick()).await;
    case.file.url = case
        .origin
        .add_redirected_file("/model.bin", case.bytes.clone())
        .parse()
        .unwrap();
    case.file
        .headers
        .insert("authorization", "Bearer canary".parse().unwrap());
    case.fetch().await.unwrap();
    case.assert_whole("redirected");
    assert!(case.origin.leaks().is_empty(), "{:?}", case.origin.leaks());
    let requests = case.origin.requests();
    let (first, second): (Vec<_>, Vec<_>) = requests.iter().partition(|r| r.host == testkit::OriginHost::Origin);
    assert!(first.iter().all(|r| r.header("authorization") == Some("Bearer canary")));
    assert_eq!(second.len(), LENGTH.div_ceil(1000));
    assert!(second.iter().all(|r| r.range().is_some()));
}

#[tokio::test]
async fn the_bandwidth_limit_holds() {
    let mut case = Case::new(quick()).await;
    case.cx.throttle = Arc::new(Throttle::new(Some(20_000)));
    let begin = Instant::now();
    case.fetch().await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(480), "{:?}", begin.elapsed());
    case.assert_whole("slow");
}
