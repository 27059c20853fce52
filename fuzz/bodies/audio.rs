use dialects::Transcoder;
use dialects::audio::{Events, Form, Hearing, document};
use domain::audio::Task;

/// Reads `data` up to an empty line as fields (`name=value`), the rest as the speech program's answer. Must hold: no panic;
/// the same answer whatever the pieces it comes in; an end or an error, never both.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (fields, lines) = text.split_once("\n\n").unwrap_or(("", &text));
    let mut form = Form::default();
    for (name, value) in fields.lines().filter_map(|line| line.split_once('=')) {
        form.field(name, value.to_owned());
    }
    let asked = match form.finish(Task::Transcribe) {
        Ok(asked) => asked,
        Err(error) => {
            assert!(error.param.is_some(), "a refusal that names no field");
            return;
        }
    };
    let events = |piece: usize| {
        let mut events = Events::new(asked.clone());
        let mut out = Vec::new();
        for chunk in lines.as_bytes().chunks(piece) {
            events.push(chunk, &mut out);
        }
        events.finish(&mut out);
        out
    };
    let whole = events(lines.len().max(1));
    assert_eq!(whole, events(3));
    let mut hearing = Hearing::default();
    hearing.push(lines.as_bytes(), |_, _| {});
    let complete = hearing.finish().is_ok();
    assert_eq!(complete, whole.ends_with(b"data: [DONE]\n\n"));
    if complete {
        assert_eq!(document(&asked, &hearing).status, 200);
    }
}
