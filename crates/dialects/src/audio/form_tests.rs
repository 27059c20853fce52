use super::*;

fn ask(fields: &[(&str, &str)]) -> Result<Asked, RunnerError> {
    ask_for(Task::Transcribe, fields)
}

fn ask_for(task: Task, fields: &[(&str, &str)]) -> Result<Asked, RunnerError> {
    let mut form = Form::default();
    for (name, value) in fields {
        form.field(name, (*value).to_owned());
    }
    form.finish(task)
}

#[test]
fn nothing_but_defaults() {
    let asked = ask(&[]).unwrap();
    assert_eq!(asked.model, None);
    assert_eq!(
        asked.wanted,
        Wanted {
            segments: true,
            ..Wanted::default()
        }
    );
    let listening = asked.listening;
    assert_eq!(listening.temperatures, LADDER);
    assert_eq!(listening.voice_filter, VoiceFilter::Auto);
    assert!(listening.batched && listening.language.is_none() && !listening.word_timestamps);
}

#[test]
fn every_field() {
    let asked = ask(&[
        ("model", "whisper-1"),
        ("language", "English"),
        ("prompt", "Names: Ada."),
        ("response_format", "verbose_json"),
        ("temperature", "0.4"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("stream", "True"),
        ("include[]", "logprobs"),
        ("hotwords", "Tiny"),
        ("keywords[]", "llama"),
        ("keywords[]", "runner"),
        ("beam_size", "3"),
        ("without_timestamps", "no"),
        ("vad_filter", "on"),
        ("known_speaker_names[]", "Ada"),
        ("something_new", "7"),
    ])
    .unwrap();
    assert_eq!(asked.model.as_deref(), Some("whisper-1"));
    assert_eq!(
        asked.wanted,
        Wanted {
            format: DocumentFormat::VerboseJson,
            words: true,
            segments: true,
            stream: true
        }
    );
    let listening = asked.listening;
    assert_eq!(listening.language.as_deref(), Some("en"));
    assert_eq!(listening.hotwords.as_deref(), Some("Tiny llama runner"));
    assert_eq!(listening.temperatures, [0.4]);
    assert_eq!(listening.beam_size, Some(3));
    assert_eq!(listening.voice_filter, VoiceFilter::On(VoiceActivity::default()));
    assert!(listening.word_timestamps && !listening.batched);
}

#[test]
fn words_alone_leave_segments_out_and_count_in_verbose_json_only() {
    let words = ("timestamp_granularities", "word");
    let verbose = ask(&[words, ("response_format", "verbose_json")]).unwrap();
    assert!(verbose.wanted.words && !verbose.wanted.segments);
    let json = ask(&[words]).unwrap();
    assert!(!json.wanted.words && !json.listening.word_timestamps);
}

#[test]
fn brackets_may_be_numbered() {
    let fields = [
        ("timestamp_granularities[0]", "word"),
        ("timestamp_granularities[1]", "segment"),
        ("response_format", "verbose_json"),
    ];
    let wanted = ask(&fields).unwrap().wanted;
    assert!(wanted.words && wanted.segments);
    assert!(ask(&[("include[0]", "speakers")]).is_err());
}

#[test]
fn languages() {
    let one = ask(&[("languages[]", "de")]).unwrap().listening;
    assert_eq!((one.language.as_deref(), one.languages.len()), (Some("de"), 0));
    let two = ask(&[("languages[]", "de"), ("languages[]", "French")])
        .unwrap()
        .listening;
    assert_eq!(
        (two.language, two.languages),
        (None, vec!["de".to_owned(), "fr".to_owned()])
    );
    let both = ask(&[("languages[]", "de"), ("languages[]", "fr"), ("language", "en-GB")])
        .unwrap()
        .listening;
    assert_eq!((both.language.as_deref(), both.languages.len()), (Some("en"), 0));
}

#[test]
fn chunking() {
    let filter = |fields: &[(&str, &str)]| ask(fields).unwrap().listening.voice_filter;
    assert_eq!(
        filter(&[("chunking_strategy", "auto")]),
        VoiceFilter::On(VoiceActivity::default())
    );
    let object = r#"{"type":"server_vad","threshold":0.3,"prefix_padding_ms":200,"silence_duration_ms":700}"#;
    let activity = VoiceActivity {
        threshold: Some(0.3),
        min_silence_duration_ms: Some(700),
        speech_pad_ms: Some(200),
    };
    assert_eq!(filter(&[("chunking_strategy", object)]), VoiceFilter::On(activity));
    let members = [
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.3"),
        ("chunking_strategy[prefix_padding_ms]", "200"),
        ("chunking_strategy[silence_duration_ms]", "700"),
    ];
    assert_eq!(filter(&members), VoiceFilter::On(activity));
    assert_eq!(
        filter(&[("vad_filter", "false"), ("chunking_strategy", "auto")]),
        VoiceFilter::Off
    );
}

#[test]
fn a_translation_may_be_asked_for_on_both_routes() {
    assert_eq!(ask(&[("task", "translate")]).unwrap().listening.task, Task::Translate);
    assert_eq!(ask_for(Task::Translate, &[]).unwrap().listening.task, Task::Translate);
    assert!(ask_for(Task::Translate, &[("task", "transcribe")]).is_err());
}

#[test]
fn bad_values_are_named() {
    for (name, value, code) in [
        ("response_format", "xml", "invalid_value"),
        ("response_format", "diarized_json", "invalid_value"),
        ("temperature", "1.1", "invalid_value"),
        ("temperature", "-0.1", "invalid_value"),
        ("temperature", "NaN", "invalid_value"),
        ("temperature", "warm", "invalid_value"),
        ("timestamp_granularities[]", "phoneme", "invalid_value"),
        ("include[]", "speakers", "invalid_value"),
        ("stream", "maybe", "invalid_value"),
        ("beam_size", "0", "invalid_value"),
        ("beam_size", "2.5", "invalid_value"),
        ("beam_size", "1000000", "invalid_value"),
        ("task", "sing", "invalid_value"),
        ("chunking_strategy", "often", "invalid_value"),
        ("chunking_strategy", r#"{"type":"client_vad"}"#, "invalid_value"),
        (
            "chunking_strategy",
            r#"{"type":"server_vad","threshold":3}"#,
            "invalid_value",
        ),
        ("language", "xx", "unsupported_language"),
        ("languages[]", "xx", "unsupported_language"),
    ] {
        let error = ask(&[(name, value)]).unwrap_err();
        assert_eq!(error.code.as_deref(), Some(code), "{name}={value}");
        assert_eq!(
            error.param.as_deref(),
            Some(name.trim_end_matches("[]")),
            "{name}={value}"
        );
    }
}

#[test]
fn blank_fields_count_as_missing() {
    let fields = [
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "stream",
        "vad_filter",
        "hotwords",
    ];
    let blank: Vec<_> = fields.iter().map(|name| (*name, " ")).collect();
    assert_eq!(ask(&blank).unwrap(), ask(&[]).unwrap());
}
