//! What is asked for, how often, and what is kept when it stops.

use super::*;

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
        // More on a busy machine, where an honest connection may seem silent.
        assert!(case.origin.requests().len() >= 5);
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
