//! S9 and S10: a child gets its arguments as they are, its environment and its three pipes, and nothing else.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use supervisor::INSTANCE_TAG_VARIABLE;
use testkit::Recorded;

use crate::kit::{Kit, Role};

#[tokio::test]
async fn nothing_is_inherited() {
    let kit = Kit::new();
    // Things a careless fork would pass on: a listener, and the pipes of another child.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_other, _, _other_lines) = kit.ready(kit.stub("other", &[])).await;
    let canary = kit.folder.join("canary");
    let hostile = format!("$(touch {0}) `touch {0}`; touch {0} | touch {0}", canary.display());
    let mut spec = kit.stub("clean", &[("LLAMA_API_KEY", "secret")]);
    spec.args.extend(["--alias".into(), hostile.clone().into()]);
    let (given, program) = (spec.env.clone(), spec.program.clone());
    let (child, _, _lines) = kit.ready(spec).await;
    let Some(Recorded::Start { argv, mut env, fds, .. }) = kit.record("clean").into_iter().next() else {
        panic!("no start event")
    };

    let tag = env.remove(INSTANCE_TAG_VARIABLE).expect("has a tag");
    assert_eq!(tag.len(), 32);
    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
    let given: BTreeMap<String, String> = given.iter().map(|(name, value)| (text(name), text(value))).collect();
    assert_eq!(env, given, "the environment is exactly what the spec says");

    assert_eq!(argv[0], program.to_string_lossy());
    assert_eq!(argv.last(), Some(&hostile), "no shell looked at it");
    assert!(!canary.exists());

    assert!(strange(&fds).is_empty(), "inherited descriptors: {:?}", strange(&fds));
    assert!(
        fds.iter()
            .filter(|(number, _)| *number <= 2)
            .all(|(_, target)| target.starts_with("pipe:")),
        "{fds:?}"
    );
    drop(listener);
    child.stop().await;
    kit.supervisor.shutdown().await;
}

/// Descriptors beside the three pipes, the record and the listing itself.
fn strange(fds: &[(u32, String)]) -> Vec<&(u32, String)> {
    fds.iter()
        .filter(|(n, target)| *n > 2 && !target.contains(".jsonl") && !target.ends_with("/fd"))
        .collect()
}

#[test]
fn what_the_app_inherited_by_mistake_is_not_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let owner = Role::start("grandchild", folder.path());
    assert!(
        Path::new(&format!("/proc/{}/fd/9", owner.process.id())).exists(),
        "the fault this test needs"
    );
    let record = testkit::read_record(&folder.path().join("forking.jsonl")).unwrap();
    let Some(Recorded::Start { fds, .. }) = record.first() else {
        panic!("no start event")
    };
    assert!(strange(fds).is_empty(), "inherited descriptors: {:?}", strange(fds));
    let forked = owner.says[1].parse().unwrap();
    drop(owner);
    // It ignores everything else, and its app is gone.
    crate::kit::kill("-KILL", forked);
}

#[tokio::test]
async fn it_leads_its_own_group_in_the_folder_asked_for() {
    let kit = Kit::new();
    let mut spec = kit.stub("group", &[]);
    spec.cwd = Some(kit.folder.clone());
    let (child, _, _lines) = kit.ready(spec).await;
    let id = testkit::ProcessId::of(child.pid()).unwrap();
    assert_eq!(id.group(), Some(id.pid));
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", id.pid)).unwrap();
    assert_eq!(cwd, kit.folder.canonicalize().unwrap());
    kit.supervisor.shutdown().await;
}
