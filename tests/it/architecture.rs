//! The dependency directions of ARCHITECTURE.md, read from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate → the workspace crates it may use (besides test-only dependencies).
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("gguf", &["domain"]),
    ("scheduler", &["domain"]),
    ("dialects", &["domain"]),
    ("config", &["domain"]),
    ("hardware", &["domain"]),
    ("telemetry", &["domain"]),
    ("store", &["domain"]),
    ("ollama-store", &["domain"]),
    ("downloads", &["domain", "gguf", "ollama-store", "store", "telemetry"]),
    ("supervisor", &["domain", "telemetry"]),
    ("engines", &["domain", "hardware", "supervisor", "telemetry"]),
    ("models", &["domain", "gguf", "ollama-store", "telemetry"]),
    (
        "router",
        &[
            "domain",
            "scheduler",
            "supervisor",
            "engines",
            "models",
            "telemetry",
            "hardware",
        ],
    ),
    (
        "http-api",
        &[
            "domain",
            "config",
            "dialects",
            "downloads",
            "ollama-store",
            "store",
            "router",
            "models",
            "telemetry",
            "hardware",
            "engines",
        ],
    ),
    (
        "app",
        &[
            "domain",
            "config",
            "downloads",
            "engines",
            "hardware",
            "http-api",
            "models",
            "ollama-store",
            "router",
            "store",
            "supervisor",
            "telemetry",
        ],
    ),
    ("headless", &["app", "domain"]),
    ("llama-runner-desktop", &["app", "domain"]),
    ("testkit", &[]),
    ("bench-harness", &[]),
    ("integration-tests", &[]),
    ("xtask", &[]),
];

/// Crates that compute and nothing else.
const PURE: &[&str] = &["domain", "gguf", "scheduler", "dialects"];
/// What a pure crate must never reach.
const IO: &[&str] = &["tokio", "hyper", "axum", "reqwest", "rusqlite"];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        // This platform only: a fresh machine has not fetched the crates of the others.
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Package name → names of its normal (not dev, not build) dependencies, as resolved.
fn graph(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| {
            (
                p["id"].as_str().unwrap_or_default(),
                p["name"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().into_iter().flatten() {
        let name = name_of[node["id"].as_str().unwrap_or_default()].to_owned();
        let normal = node["deps"].as_array().into_iter().flatten().filter(|dep| {
            dep["dep_kinds"].as_array().into_iter().flatten().any(|kind| {
                let linux = kind["target"]
                    .as_str()
                    .is_none_or(|t| !t.contains("windows") && !t.contains("macos"));
                kind["kind"].is_null() && linux
            })
        });
        let deps = normal.map(|dep| name_of[dep["pkg"].as_str().unwrap_or_default()].to_owned());
        graph.entry(name).or_default().extend(deps);
    }
    graph
}

fn reachable(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_owned()];
    while let Some(name) = todo.pop() {
        for dep in graph.get(&name).into_iter().flatten() {
            if seen.insert(dep.clone()) {
                todo.push(dep.clone());
            }
        }
    }
    seen
}

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata();
    let graph = graph(&metadata);
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let members: BTreeSet<&str> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|p| p["source"].is_null())
        .filter_map(|p| p["name"].as_str())
        .collect();
    for member in &members {
        let may = allowed
            .get(member)
            .unwrap_or_else(|| panic!("{member} has no line in the table of allowed directions"));
        for dep in graph[*member].iter().filter(|d| members.contains(d.as_str())) {
            assert!(may.contains(&dep.as_str()), "{member} must not use {dep}");
        }
    }
}

#[test]
fn the_pure_crates_reach_no_io() {
    let graph = graph(&metadata());
    for name in PURE {
        let reached = reachable(&graph, name);
        for io in IO {
            assert!(!reached.contains(*io), "{name} reaches {io}");
        }
    }
}

#[test]
fn the_headless_binary_links_no_desktop_library() {
    let reached = reachable(&graph(&metadata()), "headless");
    for name in ["tauri", "wry", "tao", "gtk", "webkit2gtk", "tray-icon", "gdk", "glib"] {
        assert!(!reached.contains(name), "headless reaches {name}");
    }
}
