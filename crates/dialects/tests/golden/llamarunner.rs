use std::time::Duration;

use dialects::llamarunner::{self as pro, ProxyView, ServerView, StartCall, SystemView};

use crate::support::{START_MS, compare, folder, pretty, views};

#[test]
fn snapshots() {
    let folder = folder("llamarunner");
    for view in views() {
        let id = view.entry.key.to_string();
        let file = id.replace('/', "-");
        compare(
            &folder.join(format!("status-{file}.json")),
            &pretty(&pro::model_status(&id, &view, START_MS)),
        );
    }
    compare(
        &folder.join("info.json"),
        &pretty(&pro::model_info("tiny-chat", &views()[0], true)),
    );
    let hidden = String::from_utf8(pro::model_info("tiny-chat", &views()[0], false)).unwrap();
    assert!(hidden.contains("\"path\":\"tiny-chat.gguf\""), "{hidden}");
    let proxy = |port| ProxyView {
        status: "running".into(),
        port,
    };
    let system = SystemView {
        models_total: 5,
        models_loaded: 2,
        models_memory: 52_428_800,
        ollama: proxy(Some(11434)),
        lmstudio: ProxyView {
            status: "error".into(),
            port: None,
        },
        cpu_percent: 45.234,
        memory_used: 16 << 30,
        memory_available: 32 << 30,
        speech: "ready",
    };
    compare(&folder.join("system.json"), &pretty(&pro::system_status(&system)));
    let server = ServerView {
        version: "0.1.0".into(),
        platform: "linux-x86_64".into(),
        rust_version: "1.95.0".into(),
        llama_server: Some("b11549".into()),
        python_version: Some("3.11.7".into()),
        faster_whisper: Some("1.2.1".into()),
    };
    compare(&folder.join("server.json"), &pretty(&pro::server_info(&server)));
    let health = pro::health("0.1.0", Duration::from_secs(61), START_MS, false);
    compare(&folder.join("health.json"), &pretty(&health.body));
    assert_eq!(pro::health("0.1.0", Duration::ZERO, 0, true).status, 503);
}

#[test]
fn start_and_stop() {
    assert_eq!(StartCall::parse(b" ").unwrap(), StartCall::default());
    let call = StartCall::parse(
        br#"{"wait":true,"ctx_size":8192,"no_mmap":true,"flash_attn":"on","backend_options":{"threads":4,"ctx_size":1}}"#,
    )
    .unwrap();
    assert!(call.wait);
    assert_eq!(
        (call.launch.context, call.launch.threads, call.launch.mmap),
        (Some(8192), Some(4), Some(false))
    );
    assert!(StartCall::parse(b"{\"ctx_size\":\"x\"}").is_err());
    let views = views();
    assert_eq!(
        pro::start_reply(&views[0]),
        br#"{"success":true,"port":40123,"status":"loaded"}"#
    );
    assert_eq!(
        pro::start_reply(&views[4]),
        br#"{"success":true,"port":null,"status":"starting"}"#
    );
    assert_eq!(pro::stop_reply(), br#"{"success":true,"status":"stopped"}"#);
    assert!(pro::parse_stop(b"{\"force\":true}").unwrap());
    assert!(!pro::parse_stop(b"").unwrap());
    assert!(pro::parse_stop(b"[").is_err());
}
