//! Full disks (promise D3).

use std::sync::atomic::AtomicUsize;

use super::*;

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
        .fault("model.bin", OriginFault::Slow { bytes_per_second: 1500 });
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    case.cx.disk_free = Arc::new(move |_| {
        let look = counted.fetch_add(1, Ordering::Relaxed);
        Some(if look < 10 { 1 << 30 } else { 100 })
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
