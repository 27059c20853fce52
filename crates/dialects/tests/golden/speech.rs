//! Cases under `tests/golden/audio-speech`: `request.json` and what a voice engine is asked, the error, or the events that
//! become of a sound file.

use std::fs;
use std::sync::Arc;

use dialects::audio::{self, ModelVoices, SpeechForm, SpeechRequest, SpeechStream};
use dialects::openai::Ids;
use dialects::{ModelView, StreamForm, Transcoder};
use domain::audio::Voice;
use domain::{Capability, EngineKind, ErrorKind, ModelEntry, RunnerError};

use crate::support::{cases, compare, entry as support_entry, folder, pretty};

#[test]
fn requests_and_events() {
    let mut seen = 0;
    for case in cases("audio-speech") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        seen += 1;
        let body = fs::read(case.join("request.json")).unwrap();
        let request = match SpeechRequest::parse(&body) {
            Ok(request) => request,
            Err(error) => {
                assert!(name.starts_with("error-"), "{name}: {error}");
                let rendered = audio::error(&error);
                assert_eq!(rendered.status, 400, "{name}");
                compare(&case.join("error.json"), &pretty(&rendered.body));
                continue;
            }
        };
        assert!(!name.starts_with("error-"), "{name} is accepted");
        compare(
            &case.join("speaking.json"),
            &pretty(&serde_json::to_vec(&request.speaking()).unwrap()),
        );
        if request.events {
            // How the sound is cut into events follows its chunks, so only the whole is compared.
            let sound = fs::read(case.join("upstream.bin")).unwrap();
            let mut stream = SpeechStream::new(&request);
            let mut events = Vec::new();
            for chunk in sound.chunks(100) {
                stream.push(chunk, &mut events);
            }
            stream.finish(&mut events);
            compare(&case.join("answer.sse"), &events);
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_failure_before_the_first_event_is_one_event() {
    let mut out = Vec::new();
    let error = RunnerError::new(ErrorKind::EngineFailed, "No voice engine is there.").code("engine_not_installed");
    SpeechForm.fail(&error, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "data: {\"error\":{\"message\":\"No voice engine is there.\",\"type\":\"server_error\",\"param\":null,\
         \"code\":\"engine_not_installed\"}}\n\n"
    );
}

fn voice(id: &str, language: Option<&str>) -> Voice {
    Voice {
        id: id.into(),
        name: id.to_uppercase(),
        language: language.map(str::to_owned),
        gender: None,
    }
}

#[test]
fn lists() {
    let of = |model: &str, voices: Vec<Voice>| ModelVoices {
        model: model.into(),
        voices,
    };
    let body = audio::voices(&[
        of("espeak-ng", vec![voice("alloy", None), voice("en-us", Some("en-US"))]),
        of("kokoro", vec![voice("af_heart", Some("en-US"))]),
    ]);
    compare(&folder("audio-speech").join("voices.json"), &pretty(&body));

    let entry = |key: &str, engine: EngineKind, capability: Capability| ModelEntry {
        engine,
        ..support_entry(key, &[capability])
    };
    let models = [
        entry("whisper-base", EngineKind::FasterWhisper, Capability::Transcription),
        entry("espeak-ng", EngineKind::Speech, Capability::Speech),
        entry("tiny", EngineKind::LlamaServer, Capability::Chat),
    ];
    let models: Vec<ModelView> = models
        .into_iter()
        .map(|entry| ModelView::unloaded(Arc::new(entry)))
        .collect();
    let body = audio::audio_models(&models, Ids::Key);
    compare(&folder("audio-speech").join("models.json"), &pretty(&body));
}
