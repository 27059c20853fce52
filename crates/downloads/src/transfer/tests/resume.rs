//! A file cut anywhere goes on where it was cut and is right in the end (promise D1).

use super::*;

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
