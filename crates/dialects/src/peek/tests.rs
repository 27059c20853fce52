use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn fails(body: &[u8], needle: &str) {
    let error = peek(body).expect_err(&String::from_utf8_lossy(body));
    assert!(
        error.message.contains(needle),
        "{}: {}",
        String::from_utf8_lossy(body),
        error.message
    );
}

#[test]
fn finds_fields_anywhere() {
    let body = br#" { "messages" : [ {"model":"inner","stream":true} ] , "a":{"b":[1,2.5e-3,null,true,false,"x\"y\\"]},
        "mod\u0065l" : "A\/b \u00e9" , "stream" : true, "ttl":30,"keep_alive":"5m","n_predict":-1 } "#;
    let peeked = peek(body).unwrap();
    assert_eq!(peeked.model().unwrap().unwrap(), "A/b é");
    assert!(peeked.stream().unwrap());
    assert_eq!(peeked.ttl().unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(
        peeked.keep_alive().unwrap(),
        Some(KeepAlive::For(Duration::from_mins(5)))
    );
    assert_eq!(peeked.get(Key::NPredict).unwrap().as_i64(), Some(-1));
    assert!(!peeked.get(Key::Messages).unwrap().is_empty());
    assert_eq!(peeked.get(Key::Tools), None);
}

#[test]
fn last_duplicate_wins_and_null_is_absent() {
    let peeked = peek(br#"{"model":"a","model":"b","stream":true,"stream":null}"#).unwrap();
    assert_eq!(peeked.model().unwrap().unwrap(), "b");
    assert!(!peeked.stream().unwrap());
}

#[test]
fn types_are_checked() {
    for (body, needle) in [
        (&br#"{"model":1}"#[..], "'model' must be a string"),
        (br#"{"stream":"yes"}"#, "'stream' must be a boolean"),
        (br#"{"ttl":0}"#, "at least 1"),
        (br#"{"ttl":1.5}"#, "'ttl' must be an integer"),
        (br#"{"ttl":"60"}"#, "'ttl' must be an integer"),
        (br#"{"keep_alive":"10"}"#, "time: missing unit in duration \"10\""),
        (br#"{"keep_alive":true}"#, "'keep_alive' must be"),
    ] {
        let peeked = peek(body).unwrap();
        let error = [
            peeked.model().err(),
            peeked.stream().err(),
            peeked.ttl().err(),
            peeked.keep_alive().err(),
        ]
        .into_iter()
        .flatten()
        .next()
        .unwrap();
        assert!(error.message.contains(needle), "{}", error.message);
    }
}

#[test]
fn refuses_with_position() {
    fails(b"", "empty");
    fails(b" \n", "empty");
    fails(b"[]", "line 1, column 1");
    fails(b"\xef\xbb\xbf{}", "byte order mark");
    fails(b"{\"a\":\"\xff\"}", "line 1, column 7: invalid UTF-8");
    fails(b"{\n  bad", "line 2, column 3");
    fails(b"{\"a\":1,}", "column 8");
    fails(b"{\"a\":[1,]}", "a value expected");
    fails(b"{\"a\":[1 2]}", "',' or the end");
    fails(b"{\"a\":[1}}", "',' or the end");
    fails(b"{\"a\":{\"b\" 1}}", "':' expected");
    fails(b"{\"a\":01}", "',' or '}'");
    fails(b"{\"a\":1.}", "a digit");
    fails(b"{\"a\":+1}", "a value");
    fails(b"{\"a\":nul}", "a value");
    fails(b"{\"a\":\"\\x\"}", "invalid escape");
    fails(b"{\"a\":\"\\u12g4\"}", "invalid \\u");
    fails(b"{\"a\":\"\n\"}", "control character");
    fails(b"{\"a\":\"x", "unterminated");
    fails(b"{\"a\":1} x", "after the JSON object");
    fails(b"{\"a\":", "unexpected end");
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    assert!(peek(&nested(127)).is_ok());
    fails(&nested(128), "128 levels");
    fails(format!("{{\"a\":{}", "[".repeat(1_000_000)).as_bytes(), "128 levels");
}

#[test]
fn rewrites_in_place_or_adds() {
    let model = |body: &str, name: &str| {
        let peeked = peek(body.as_bytes()).unwrap();
        String::from_utf8(rewrite_model(body.as_bytes(), &peeked, name)).unwrap()
    };
    assert_eq!(
        model(r#"{"a":1, "model" : "x","b":2}"#, "y\"z"),
        r#"{"a":1, "model" : "y\"z","b":2}"#
    );
    assert_eq!(model(r#"{"a":1}"#, "y"), r#"{"model":"y","a":1}"#);
    assert_eq!(model(" { } ", "y"), r#" {"model":"y" } "#);
    assert_eq!(
        model(r#"{"model":"a","model":null}"#, "y"),
        r#"{"model":"a","model":"y"}"#
    );
    let body = br#"{"n_predict":5,"model":"x"}"#;
    let edits = [
        (Key::Model, b"\"m\"".to_vec()),
        (Key::NPredict, b"7".to_vec()),
        (Key::NKeep, b"0".to_vec()),
    ];
    let out = rewrite(body, &peek(body).unwrap(), &edits);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"n_keep":0,"n_predict":7,"model":"m"}"#
    );
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("model|stream|x|.*", inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_a_full_parser(value in json(), model in ".*") {
        let mut object = serde_json::Map::new();
        object.insert("a".into(), value.clone());
        object.insert("model".into(), Value::from(model.clone()));
        object.insert("z".into(), value);
        for body in [serde_json::to_vec(&object).unwrap(), serde_json::to_vec_pretty(&object).unwrap()] {
            let peeked = peek(&body).unwrap();
            prop_assert_eq!(peeked.model().unwrap().unwrap(), model.as_str());
            let rewritten: Value = serde_json::from_slice(&rewrite_model(&body, &peeked, "né\"w")).unwrap();
            object.insert("model".into(), Value::from("né\"w"));
            prop_assert_eq!(rewritten, Value::Object(object.clone()));
            object.insert("model".into(), Value::from(model.clone()));
        }
    }

    /// Accepts exactly what serde_json accepts as an object, apart from numbers out of range and lone surrogates, which
    /// are the engine's to refuse.
    #[test]
    fn never_more_lenient(text in r#"[{}\[\]",:0-9a-z\\.\-+eE \n]{0,24}"#) {
        let body = format!("{{{text}}}");
        if peek(body.as_bytes()).is_ok() {
            let parsed = serde_json::from_str::<Value>(&body);
            if let Err(e) = parsed {
                let words = e.to_string();
                prop_assert!(words.contains("out of range") || words.contains("surrogate") || words.contains("escape"),
                    "{body}: {words}");
            }
        } else {
            prop_assert!(serde_json::from_str::<Value>(&body).is_err(), "{}", body);
        }
    }

    #[test]
    fn bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = peek(&body);
    }
}
