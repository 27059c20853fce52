use supervisor::OutputStream;

use super::*;

fn line(text: &str) -> OutputLine {
    OutputLine {
        stream: OutputStream::Stderr,
        text: text.to_owned(),
    }
}

fn signals(lines: &[&str]) -> Vec<StartSignal> {
    let mut watch = StartWatch::new();
    lines.iter().filter_map(|text| watch.on_line(&line(text))).collect()
}

const LOADING_0: &str = r#"cmd_child_to_router:state:{"state":"loading","payload":{"stages":["text_model"],"current":"text_model","value":0.0}}"#;
const LOADING_1: &str = r#"cmd_child_to_router:state:{"state":"loading","payload":{"stages":["text_model"],"current":"text_model","value":1.0}}"#;
const READY: &str = r#"cmd_child_to_router:state:{"state":"ready","payload":{"id":"x","aliases":["x"],"meta":{"n_vocab":768,"n_ctx":512}}}"#;
const LISTENING: &str =
    r#"{"type":"log","time":19912,"level":"info","msg":"srv  llama_server: listening on http://127.0.0.1:39639\n"}"#;

fn address() -> SocketAddr {
    "127.0.0.1:39639".parse().unwrap()
}

fn ready(context: Option<u32>) -> StartSignal {
    StartSignal::Ready(ReadyFacts {
        address: address(),
        context,
    })
}

#[test]
fn child_mode_in_either_order_of_the_pipes() {
    let start = [StartSignal::Progress(0.0), StartSignal::Progress(1.0)];
    let [a, b] = start;
    assert_eq!(
        signals(&[LOADING_0, LOADING_1, LISTENING, READY]),
        [a, b, StartSignal::Listening(address()), ready(Some(512))]
    );
    assert_eq!(
        signals(&[LOADING_0, LOADING_1, READY, LISTENING]),
        [a, b, ready(Some(512))]
    );
    // The state pipe was read late altogether.
    assert_eq!(signals(&[LISTENING, LOADING_0, LOADING_1, READY]), [ready(None)]);
}

#[test]
fn without_child_mode_the_address_is_the_readiness() {
    assert_eq!(signals(&[LISTENING]), [ready(None)]);
    for text in [
        "main: server is listening on http://127.0.0.1:39639 - starting the main loop",
        "0.00.019.912 I srv  llama_server: listening on http://127.0.0.1:39639",
        "listening on http://127.0.0.1:39639",
    ] {
        assert_eq!(signals(&[text]), [ready(None)], "{text}");
    }
}

#[test]
fn progress_spans_stages_and_never_falls() {
    let state = |current: &str, value: f32| {
        format!(
            r#"cmd_child_to_router:state:{{"state":"loading","payload":{{"stages":["text_model","mmproj_model"],"current":"{current}","value":{value}}}}}"#
        )
    };
    let lines = [
        state("text_model", 0.0),
        state("text_model", 0.5),
        state("text_model", 0.5),
        state("text_model", 0.2),
        state("text_model", 1.0),
        r#"cmd_child_to_router:state:{"state":"loading","payload":{"stage":"mmproj_model"}}"#.into(),
        state("mmproj_model", 0.0),
        state("mmproj_model", 7.0),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(signals(&lines), [0.0, 0.25, 0.5, 1.0].map(StartSignal::Progress));
}

#[test]
fn sleep_and_wake() {
    let sleeping = r#"cmd_child_to_router:state:{"state":"sleeping","payload":{}}"#;
    assert_eq!(
        signals(&[LOADING_0, LISTENING, READY, READY, sleeping, READY]),
        [
            StartSignal::Progress(0.0),
            StartSignal::Listening(address()),
            ready(Some(512)),
            StartSignal::Sleeping,
            ready(Some(512)),
        ]
    );
}

#[test]
fn hostile_and_foreign_lines_mean_nothing() {
    for text in [
        "",
        "   ",
        "cmd_child_to_router:",
        "cmd_child_to_router:state:",
        "cmd_child_to_router:state:{",
        "cmd_child_to_router:state:[]",
        r#"cmd_child_to_router:state:{"state":5}"#,
        r#"cmd_child_to_router:state:{"state":"loading","payload":{"value":"x"}}"#,
        r#"cmd_child_to_router:state:{"state":"new thing","payload":{}}"#,
        "srv load_model: loading model '/x/listening on http://127.0.0.1:1/m.gguf'",
        "x: listening on http://0.0.0.0:80",
        "x: listening on http://192.168.0.1:80",
        "x: listening on http://127.0.0.1:0",
        "x: listening on http://127.0.0.1:99999",
        "x: listening on http://localhost:80",
        r#"{"type":"log"}"#,
        r#"{"type":"log","msg":5}"#,
        "{}",
    ] {
        assert_eq!(signals(&[text]), [], "{text}");
    }
}

#[test]
fn log_lines() {
    let check = |text: &str, expected: Option<(Level, &str)>| {
        let found = log_line(&line(text)).map(|l| (l.level, l.text));
        assert_eq!(found, expected.map(|(level, text)| (level, text.to_owned())), "{text}");
    };
    check(
        LISTENING,
        Some((Level::Info, "srv  llama_server: listening on http://127.0.0.1:39639")),
    );
    check(
        r#"{"type":"log","time":1,"level":"warn","msg":"a\nb\n"}"#,
        Some((Level::Warn, "a b")),
    );
    check(
        r#"{"type":"log","time":1,"level":"error","msg":"bad"}"#,
        Some((Level::Error, "bad")),
    );
    check(
        r#"{"type":"log","time":1,"level":"debug","msg":"x"}"#,
        Some((Level::Debug, "x")),
    );
    check(r#"{"type":"log","time":1,"level":"info","msg":"\n"}"#, None);
    check(
        r#"{"type":"fit_memory_breakdown","data":{"unit":"MiB"}}"#,
        Some((Level::Debug, r#"fit_memory_breakdown: {"unit":"MiB"}"#)),
    );
    check(
        "0.00.005.308 E cmn  common_init_: failed",
        Some((Level::Error, "cmn  common_init_: failed")),
    );
    check("0.00.005.308 W x", Some((Level::Warn, "x")));
    check(
        "error: invalid argument: --x",
        Some((Level::Error, "error: invalid argument: --x")),
    );
    check("1.5 tokens per second", Some((Level::Info, "1.5 tokens per second")));
    check("{not json", Some((Level::Info, "{not json")));
    check(
        "ümläute sind auch nur Büchstaben, error",
        Some((Level::Info, "ümläute sind auch nur Büchstaben, error")),
    );
    check(LOADING_0, None);
    check(READY, None);
    check("", None);
}
