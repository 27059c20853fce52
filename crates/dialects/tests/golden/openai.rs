use dialects::openai::{self, Ids, ModelListOptions, RelayTail, StreamErrorForm};
use dialects::peek;

use crate::support::{compare, folder, pretty, views};

#[test]
fn chat_relay() {
    let body = br#"{"model":"alias","messages":[{"role":"user","content":"ping"}],"stream":true,"n_keep":-7}"#;
    let peeked = peek::peek(body).unwrap();
    let edits = openai::check_chat(&peeked, openai::ChatRules::OpenAi).unwrap();
    let mut all = edits;
    all.push((peek::Key::Model, b"\"tiny-chat\"".to_vec()));
    let sent = peek::rewrite(body, &peeked, &all);
    assert_eq!(
        String::from_utf8(sent).unwrap(),
        r#"{"model":"tiny-chat","messages":[{"role":"user","content":"ping"}],"stream":true,"n_keep":-1}"#
    );

    let stream = std::fs::read(folder("engine").join("chat.sse")).unwrap();
    let ends = |stream: &[u8], piece: usize, form| {
        let mut tail = RelayTail::new();
        stream.chunks(piece).for_each(|chunk| tail.observe(chunk));
        let mut out = Vec::new();
        tail.finish(form, &mut out);
        out
    };
    for form in [StreamErrorForm::OpenAi, StreamErrorForm::LmStudio] {
        assert!(ends(&stream, stream.len(), form).is_empty());
        for cut in 0..stream.len() - 20 {
            let whole = ends(&stream[..cut], stream.len(), form);
            assert!(!whole.is_empty(), "cut at {cut}");
            if cut % 101 == 0 {
                assert_eq!(whole, ends(&stream[..cut], 1, form));
            }
        }
    }
    let cut = stream.len() / 2;
    let name = |form| {
        if form == StreamErrorForm::OpenAi {
            "cut-openai.sse"
        } else {
            "cut-lmstudio.sse"
        }
    };
    for form in [StreamErrorForm::OpenAi, StreamErrorForm::LmStudio] {
        compare(
            &folder("openai").join(name(form)),
            &[&stream[..cut], &ends(&stream[..cut], 50, form)].concat(),
        );
    }
}

#[test]
fn models() {
    let folder = folder("openai");
    let options = ModelListOptions::default();
    compare(
        &folder.join("models.json"),
        &pretty(&openai::models_list(&views(), options)),
    );
    let ollama = ModelListOptions {
        ids: Ids::Ollama,
        ..options
    };
    compare(
        &folder.join("models-ollama.json"),
        &pretty(&openai::models_list(&views()[..1], ollama)),
    );
    let bare = ModelListOptions {
        bare: true,
        show_path: true,
        ..options
    };
    compare(
        &folder.join("models-bare.json"),
        &pretty(&openai::models_list(&views()[..1], bare)),
    );
    let one = openai::model_one(&views()[0], "alias", options);
    let value: serde_json::Value = serde_json::from_slice(&one).unwrap();
    assert_eq!((&value["id"], &value["root"]), (&"alias".into(), &"alias".into()));
    assert_eq!(openai::models_list(&[], options), br#"{"object":"list","data":[]}"#);
    assert!(
        !String::from_utf8(openai::models_list(&views(), options))
            .unwrap()
            .contains("/home/")
    );
}

#[test]
fn rerank() {
    let request = br#"{"model":"acme/rerank","query":"What is the capital of France?","documents":["Berlin is big.","Paris is the capital of France."]}"#;
    let upstream = std::fs::read(folder("engine").join("rerank.json")).unwrap();
    let reply = openai::rerank_response(request, &upstream).unwrap();
    compare(&folder("openai").join("rerank.json"), &pretty(&reply));
}
