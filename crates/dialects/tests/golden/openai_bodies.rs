//! Bodies of the OpenAI routes: what is changed before they are relayed, what is refused, what is shaped on its way back.

use dialects::engine::{self, AnswerCollector, Limits, Wire};
use dialects::openai::{
    self, CompletionPlan, CompletionShape, Cut, InfillHead, InfillStream, NamedReasoning, Prompt, ReasoningName,
    Several, SeveralAnswers, SeveralStream, ShapedStream, StreamErrorForm,
};
use dialects::{Transcoder, peek};
use domain::{ModelProfile, RunnerError};
use serde_json::Value;

use crate::support::{cases, compare, folder, pretty, replay, replay_all};

enum Outcome {
    /// The body that goes to the engine.
    Body(Vec<u8>),
    /// The shaped answer.
    Reply(Vec<u8>),
}

fn run(name: &str, body: &[u8]) -> Result<Outcome, RunnerError> {
    let peeked = peek::peek(body)?;
    let mut edits = if name.starts_with("chat") {
        openai::check_chat(&peeked, openai::ChatRules::OpenAi)?
    } else if name.starts_with("completion") {
        let plan = openai::completion_plan(body, &peeked)?;
        // LM Studio's old route shapes nothing.
        let shapes = !matches!(plan, CompletionPlan::Relay(_)) && !name.ends_with("logprobs");
        assert_eq!(plan.clone().relayed().is_err(), shapes, "{name}");
        match plan {
            CompletionPlan::Infill(request, _) => {
                return engine::infill_body(&request, Limits::default()).map(Outcome::Body);
            }
            CompletionPlan::Relay(edits) | CompletionPlan::Shaped(edits, _) => edits,
        }
    } else {
        let edits = openai::check_embeddings(&peeked)?;
        if let Some(cut) = Cut::of(&peeked)? {
            let upstream = std::fs::read(folder("engine").join("embeddings.json")).unwrap();
            return cut.reply(&upstream, "embed").map(Outcome::Reply);
        }
        edits
    };
    // Ollama's port for one case, so that its defaults are seen.
    let added = openai::additions(&peeked, &ModelProfile::default(), name == "chat-options", &mut edits)?;
    let sent = peek::rewrite(body, &peeked, &edits);
    Ok(Outcome::Body(peek::with_defaults(&sent, &peeked, &added.members)))
}

#[test]
fn bodies() {
    for case in cases("openai") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let request = std::fs::read(case.join("request.json")).unwrap();
        match run(&name, &request) {
            Err(error) => {
                assert!(name.contains("-error-"), "{name}: {error}");
                assert!(error.param.is_some() && error.code.is_some(), "{name} names no field");
                let rendered = openai::error(&error);
                let text = format!("{}\n{}\n", rendered.status, String::from_utf8(rendered.body).unwrap());
                compare(&case.join("error.txt"), text.as_bytes());
            }
            Ok(outcome) => {
                assert!(!name.contains("-error-"), "{name} is accepted");
                match outcome {
                    Outcome::Body(body) => compare(&case.join("upstream.json"), &pretty(&body)),
                    Outcome::Reply(reply) => compare(&case.join("response.json"), &pretty(&reply)),
                }
            }
        }
    }
}

#[test]
fn cut_vectors_have_length_one() {
    use base64::Engine as _;
    let upstream = std::fs::read(folder("engine").join("embeddings.json")).unwrap();
    let reply = |body: &str| {
        let cut = Cut::of(&peek::peek(body.as_bytes()).unwrap()).unwrap().unwrap();
        serde_json::from_slice::<Value>(&cut.reply(&upstream, "m").unwrap()).unwrap()
    };
    let plain = reply(r#"{"input":"x","dimensions":8}"#);
    let packed = reply(r#"{"input":"x","dimensions":8,"encoding_format":"base64"}"#);
    for (plain, packed) in plain["data"]
        .as_array()
        .unwrap()
        .iter()
        .zip(packed["data"].as_array().unwrap())
    {
        let numbers: Vec<f32> = plain["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap() as f32)
            .collect();
        let length: f32 = numbers.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5 && numbers.len() == 8);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(packed["embedding"].as_str().unwrap())
            .unwrap();
        let unpacked: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|four| f32::from_le_bytes(*four))
            .collect();
        assert_eq!(numbers, unpacked);
    }
}

fn shape(echo: &[&str], logprobs: Option<usize>) -> CompletionShape {
    CompletionShape {
        echo: (!echo.is_empty()).then(|| echo.iter().map(|text| Prompt::Text((*text).to_owned())).collect()),
        answers: 1,
        logprobs,
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn shaped_completions() {
    let folder_of = folder("openai");
    let stream = std::fs::read(folder("engine").join("oaicomp.sse")).unwrap();
    let make = || -> Box<dyn Transcoder> {
        Box::new(ShapedStream::new(
            &shape(&["Once"], None),
            strings(&["Once"]),
            StreamErrorForm::OpenAi,
        ))
    };
    compare(&folder_of.join("completion-echo.sse"), &replay_all(make, &stream));
    compare(
        &folder_of.join("completion-echo-cut.sse"),
        &replay(make, &stream[..stream.len() / 2], 9),
    );
    let broken = b"data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\ndata: {\"error\":{\"code\":500,\"message\":\"boom\"}}\n\ndata: [DONE]\n\n";
    let text = String::from_utf8(replay_all(make, broken)).unwrap();
    assert!(
        text.contains("\"Oncea\"") && text.contains("boom") && !text.contains("[DONE]"),
        "{text}"
    );

    let logprobs = br#"{"choices":[{"index":0,"text":"ab","logprobs":{"content":[{"id":1,"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5},{"token":"x","logprob":-2}]},{"id":2,"token":"b","logprob":-1,"top_logprobs":[]}]}}]}"#;
    let reply = openai::shape_completion(logprobs, &shape(&[], Some(1)), Vec::new()).unwrap();
    let value: Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(
        value["choices"][0]["logprobs"],
        serde_json::json!({"tokens":["a","b"],"token_logprobs":[-0.5,-1.0],"top_logprobs":[{"a":-0.5},{}],"text_offset":[0,1]})
    );
    let whole = std::fs::read(folder("engine").join("comp_ns.json")).unwrap();
    let reply = openai::shape_completion(&whole, &shape(&["Once"], None), strings(&["Once"])).unwrap();
    compare(&folder_of.join("completion-echo.json"), &pretty(&reply));
    assert!(openai::shape_completion(b"[]", &shape(&[], None), Vec::new()).is_err());
}

/// What the engine's fill-in route sends.
const FILLED: &[u8] = b"data: {\"index\":0,\"content\":\"x):\",\"tokens\":[5],\"stop\":false,\"completion_probabilities\":[{\"id\":5,\"token\":\"x):\",\"bytes\":[120,41,58],\"logprob\":-0.25,\"top_logprobs\":[{\"id\":5,\"token\":\"x):\",\"logprob\":-0.25},{\"id\":6,\"token\":\"y\",\"logprob\":-2.0}]}]}\n\ndata: {\"index\":0,\"content\":\"\",\"stop\":true,\"stop_type\":\"limit\",\"timings\":{\"cache_n\":0,\"prompt_n\":7,\"prompt_ms\":1.0,\"predicted_n\":1,\"predicted_ms\":1.0}}\n\n";

#[test]
fn filled_gaps() {
    let head = |logprobs: Option<usize>| InfillHead {
        id: "cmpl-1".into(),
        model: "tiny-chat".into(),
        created: 1_795_176_000,
        shape: shape(&[], logprobs),
        echo: if logprobs.is_none() {
            strings(&["def f("])
        } else {
            Vec::new()
        },
        include_usage: true,
    };
    let folder_of = folder("openai");
    for (logprobs, name) in [(None, "infill"), (Some(1), "infill-logprobs")] {
        let make = || -> Box<dyn Transcoder> { Box::new(InfillStream::new(head(logprobs), StreamErrorForm::OpenAi)) };
        compare(&folder_of.join(format!("{name}.sse")), &replay_all(make, FILLED));
        let cut = replay(make, &FILLED[..FILLED.len() - 60], 9);
        assert!(String::from_utf8(cut).unwrap().contains("The model's engine ended"));
        let mut collector = AnswerCollector::new(Wire::Completion);
        collector.push(FILLED);
        let reply = head(logprobs).reply(&collector.finish().unwrap());
        compare(&folder_of.join(format!("{name}.json")), &pretty(&reply));
    }
}

#[test]
fn reasoning_under_ollamas_name() {
    let stream = std::fs::read(folder("engine").join("think.sse")).unwrap();
    for (name, file) in [
        (ReasoningName::Both, "think-both.sse"),
        (ReasoningName::Short, "think-short.sse"),
    ] {
        let make = || -> Box<dyn Transcoder> { Box::new(NamedReasoning::new(name, StreamErrorForm::OpenAi)) };
        compare(&folder("openai").join(file), &replay_all(make, &stream));
        let cut = String::from_utf8(replay(make, &stream[..stream.len() / 2], 9)).unwrap();
        assert!(
            cut.contains("The model's engine ended") && !cut.contains("[DONE]"),
            "{cut}"
        );
    }
    // Chunks without reasoning are the same bytes.
    let chat = std::fs::read(folder("engine").join("chat.sse")).unwrap();
    let make =
        || -> Box<dyn Transcoder> { Box::new(NamedReasoning::new(ReasoningName::Both, StreamErrorForm::OpenAi)) };
    assert_eq!(replay_all(make, &chat), chat);
}

#[test]
fn a_stored_model_adds_to_a_chat() {
    let profile = ModelProfile {
        system: Some("Be kind.".into()),
        parameters: serde_json::json!({"temperature": 0.3, "stop": ["END"], "num_predict": 7, "num_ctx": 512})
            .as_object()
            .unwrap()
            .clone(),
        messages: vec![domain::chat::Message::text(domain::chat::Role::User, "Hi")],
        ..ModelProfile::default()
    };
    let sent = |body: &str, ollama| {
        let peeked = peek::peek(body.as_bytes()).unwrap();
        let mut edits = openai::check_chat(&peeked, openai::ChatRules::OpenAi).unwrap();
        let added = openai::additions(&peeked, &profile, ollama, &mut edits).unwrap();
        let body = peek::rewrite(body.as_bytes(), &peeked, &edits);
        serde_json::from_slice::<Value>(&peek::with_defaults(&body, &peeked, &added.members)).unwrap()
    };
    let plain = sent(r#"{"messages":[{"role":"user","content":"x"}]}"#, true);
    assert_eq!(
        (
            &plain["temperature"],
            &plain["top_p"],
            &plain["stop"][0],
            &plain["max_tokens"]
        ),
        (&0.3.into(), &1.0.into(), &"END".into(), &7.into())
    );
    let roles: Vec<&str> = plain["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["system", "user", "user"]);
    let own = sent(
        r#"{"messages":[{"role":"system","content":"y"}],"temperature":0.9,"max_completion_tokens":3}"#,
        false,
    );
    let texts: Vec<&str> = own["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["content"].as_str().unwrap())
        .collect();
    assert_eq!(
        (texts, &own["temperature"], own.get("max_tokens")),
        (vec!["y", "Hi"], &0.9.into(), None)
    );
}

/// What the engine streams for two answers, one with a tool call, to one prompt.
const TWO: &[u8] = b"data: null\n\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":null}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"system_fingerprint\":\"f\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":1,\"delta\":{\"reasoning_content\":\"hm\"}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":1,\"delta\":{\"content\":\"pong\"},\"logprobs\":{\"content\":[{\"token\":\"pong\",\"logprob\":-0.5}]}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":1,\"delta\":{}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\",\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":9,\"total_tokens\":11,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[{\"finish_reason\":\"tool_calls\",\"index\":0,\"delta\":{}}],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\"}\n\ndata: {\"choices\":[],\"created\":1,\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\",\"usage\":{\"completion_tokens\":5,\"prompt_tokens\":9,\"total_tokens\":14,\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\ndata: [DONE]\n\n";

#[test]
fn several_answers_are_counted_once_and_whole() {
    let several = |body: &str| {
        let peeked = peek::peek(body.as_bytes()).unwrap();
        Several::of(&peeked, openai::answers(&peeked).unwrap())
    };
    assert!(several(r#"{"n":1}"#).is_none() && several(r#"{"prompt":[1,2,3]}"#).is_none());
    assert!(several(r#"{"prompt":["a","b"]}"#).is_some());
    let two = several(r#"{"n":2}"#).unwrap();
    for (name, file) in [(None, "two.sse"), (Some(ReasoningName::Both), "two-named.sse")] {
        let make = || -> Box<dyn Transcoder> { Box::new(SeveralStream::new(two, name, StreamErrorForm::OpenAi)) };
        let whole = replay_all(make, TWO);
        compare(&folder("openai").join(file), &whole);
        assert_eq!(String::from_utf8(whole).unwrap().matches("\"usage\"").count(), 1);
        let cut = String::from_utf8(replay(make, &TWO[..TWO.len() / 2], 9)).unwrap();
        assert!(cut.contains("The model's engine ended") && !cut.contains("[DONE]"));
    }
    let gather = |stream: &[u8], piece: usize| {
        let mut answers = SeveralAnswers::new();
        stream.chunks(piece).for_each(|chunk| answers.push(chunk));
        answers.finish(two)
    };
    let whole = gather(TWO, TWO.len()).unwrap();
    assert_eq!(whole, gather(TWO, 1).unwrap());
    compare(&folder("openai").join("two.json"), &pretty(&whole));
    assert!(gather(&TWO[..TWO.len() / 2], 9).is_err());
    let broken = b"data: {\"error\":{\"code\":500,\"message\":\"boom\"}}\n\ndata: [DONE]\n\n";
    assert!(gather(broken, 1).unwrap_err().message.contains("boom"));
    let texts = std::fs::read(folder("engine").join("oaicomp.sse")).unwrap();
    let text: Value = serde_json::from_slice(&gather(&texts, 7).unwrap()).unwrap();
    assert_eq!(
        (&text["object"], &text["choices"][0]["finish_reason"]),
        (&"text_completion".into(), &"length".into())
    );
    assert!(text["choices"][0]["text"].as_str().unwrap().starts_with(" there was"));
}
