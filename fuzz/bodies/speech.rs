use dialects::Transcoder;
use dialects::audio::{SpeechRequest, SpeechStream};

/// Reads `data` as a request for speech, then as the sound. Must hold: no panic; a refusal says what is wrong; every piece of
/// the text holds something and nothing of it is lost; a stream has one end, whatever the pieces the sound comes in.
pub(crate) fn run(data: &[u8]) {
    let request = match SpeechRequest::parse(data) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.code.is_some(), "a refusal without a code");
            return;
        }
    };
    let bare = |text: &str| -> String {
        let kept = |c: &char| !c.is_whitespace() && !c.is_control();
        text.chars().filter(kept).collect()
    };
    let sentences = request.speaking().sentences;
    assert!(!sentences.is_empty() && sentences.iter().all(|sentence| !sentence.trim().is_empty()));
    assert_eq!(bare(&sentences.concat()), bare(&request.input));
    let events = |piece: usize| {
        let mut stream = SpeechStream::new(&request);
        let mut out = Vec::new();
        for chunk in data.chunks(piece) {
            stream.push(chunk, &mut out);
        }
        stream.finish(&mut out);
        String::from_utf8_lossy(&out).matches("speech.audio.done").count()
    };
    assert_eq!((events(data.len()), events(1)), (1, 1));
}
