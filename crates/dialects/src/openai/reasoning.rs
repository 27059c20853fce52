//! Where reasoning stands in chat answers. The engine writes `reasoning_content`; Ollama's clients read `reasoning` (Ollama
//! contract 7.2), LM Studio's do so for gpt-oss (LM Studio contract 4.2). Only streams of models that reason come here.

use domain::RunnerError;
use domain::chat::Usage;
use memchr::memmem;

use super::relay::{RelayTail, StreamErrorForm};
use crate::Transcoder;
use crate::sse::{SseSplitter, write_data, write_event};

/// How the member is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningName {
    /// Under both names, for Ollama's port.
    Both,
    /// `reasoning` alone.
    Short,
}

/// As the engine writes it. Inside a string its quotes would be escaped, so this is always a member.
const MEMBER: &[u8] = b"\"reasoning_content\":";

/// The bytes of an answer or chunk with the member renamed or repeated; nothing else changes.
pub fn name_reasoning(body: &[u8], name: ReasoningName, out: &mut Vec<u8>) {
    let mut rest = body;
    while let Some(at) = memmem::find(rest, MEMBER) {
        let (before, member) = rest.split_at(at);
        let value = &member[MEMBER.len()..];
        let length = value_length(value);
        out.extend_from_slice(before);
        out.extend_from_slice(b"\"reasoning\":");
        out.extend_from_slice(&value[..length]);
        if name == ReasoningName::Both {
            out.push(b',');
            out.extend_from_slice(&member[..MEMBER.len() + length]);
        }
        rest = &value[length..];
    }
    out.extend_from_slice(rest);
}

/// Bytes of a string or null at the beginning, the space before it included.
fn value_length(value: &[u8]) -> usize {
    let space = value.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut at = space;
    if value.get(at) != Some(&b'"') {
        let end = value[at..].iter().position(|byte| matches!(byte, b',' | b'}'));
        return end.map_or(value.len(), |end| at + end);
    }
    at += 1;
    while let Some(next) = memchr::memchr2(b'"', b'\\', &value[at..]) {
        at += next;
        if value[at] == b'"' {
            return at + 1;
        }
        at = (at + 2).min(value.len());
    }
    value.len()
}

/// A chat stream of the engine with its reasoning under another name.
pub struct NamedReasoning {
    splitter: SseSplitter,
    name: ReasoningName,
    tail: RelayTail,
    form: StreamErrorForm,
    scratch: Vec<u8>,
    /// Everything so far ended with an event.
    between: bool,
    /// Made once: that costs more than a look into an event.
    member: memmem::Finder<'static>,
}

impl NamedReasoning {
    /// For one stream.
    pub fn new(name: ReasoningName, form: StreamErrorForm) -> Self {
        Self {
            splitter: SseSplitter::new(),
            name,
            tail: RelayTail::new(),
            form,
            scratch: Vec::new(),
            between: true,
            member: memmem::Finder::new(MEMBER),
        }
    }
}

impl Transcoder for NamedReasoning {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let whole = chunk.ends_with(b"\n\n");
        if self.between && whole && self.member.find(chunk).is_none() {
            // Whole events without reasoning, which is what the engine sends once it answers, pass as they are.
            self.tail.observe(chunk);
            out.extend_from_slice(chunk);
            return;
        }
        self.between = whole;
        let Self {
            splitter,
            name,
            tail,
            scratch,
            ..
        } = self;
        let start = out.len();
        splitter.push(chunk, |event| {
            scratch.clear();
            name_reasoning(event.data, *name, scratch);
            if event.event.is_empty() {
                write_data(scratch, out);
            } else {
                write_event(&String::from_utf8_lossy(event.event), scratch, out);
            }
        });
        if out.len() > start {
            tail.observe(&out[start..]);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.tail.finish(self.form, out);
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.tail.fail(error, self.form, out);
    }

    fn ended(&self) -> bool {
        self.tail.complete()
    }

    fn error(&self) -> Option<&RunnerError> {
        None
    }

    fn usage(&self) -> Option<&Usage> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_member_is_touched() {
        let named = |body: &str, name| {
            let mut out = Vec::new();
            name_reasoning(body.as_bytes(), name, &mut out);
            String::from_utf8(out).unwrap()
        };
        for (body, both, short) in [
            (r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":1}"#),
            (
                r#"{"delta":{"reasoning_content":"x\"y\\"}}"#,
                r#"{"delta":{"reasoning":"x\"y\\","reasoning_content":"x\"y\\"}}"#,
                r#"{"delta":{"reasoning":"x\"y\\"}}"#,
            ),
            (
                r#"{"content":"\"reasoning_content\":1","reasoning_content": null}"#,
                r#"{"content":"\"reasoning_content\":1","reasoning": null,"reasoning_content": null}"#,
                r#"{"content":"\"reasoning_content\":1","reasoning": null}"#,
            ),
        ] {
            assert_eq!(named(body, ReasoningName::Both), both);
            assert_eq!(named(body, ReasoningName::Short), short);
        }
        // Cut in the middle of the value: no panic.
        for end in 0..40 {
            let body = r#"{"delta":{"reasoning_content":"x\"y\\"}}"#;
            named(&body[..end], ReasoningName::Both);
        }
    }
}
