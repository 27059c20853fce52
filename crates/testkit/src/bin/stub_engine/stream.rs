//! Generated text, streamed or whole.

use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use serde_json::{Value, json};
use testkit::monotonic_ns;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::answer::{self, prompt_tokens, timings, usage};
use crate::plan::{Next, Plan};
use crate::script::Script;
use crate::server::{Ticket, json_response, response};

/// How often a closed gate is looked at.
const GATE_LOOK: Duration = Duration::from_millis(5);

/// Which answer shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
    /// `/completion`, `/infill`
    Native,
}

/// Every body the stub sends.
pub(crate) enum AnyBody {
    Full(Option<Bytes>),
    Stream(Box<TokenStream>),
}

impl AnyBody {
    pub(crate) fn full(text: impl Into<Bytes>) -> Self {
        Self::Full(Some(text.into()))
    }
}

/// The body broke on purpose: hyper then closes the connection without the last chunk.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the test")
    }
}

impl std::error::Error for Cut {}

impl Body for AnyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream
                .poll(context)
                .map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Full(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }
}

pub(crate) async fn generate(
    kind: Kind,
    request: &Value,
    script: Script,
    alias: &str,
    ticket: Ticket,
) -> Response<AnyBody> {
    let plan = Plan::new(request, script, ticket.shared().faults.die_tokens);
    let model = match kind {
        Kind::Native => alias,
        Kind::Chat | Kind::Text => request.get("model").and_then(Value::as_str).unwrap_or(alias),
    };
    let facts = Facts {
        kind,
        id: random_id(),
        created: answer::created(),
        model: model.to_owned(),
        prompt: prompt_tokens(request),
    };
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        let include_usage = request
            .pointer("/stream_options/include_usage")
            .and_then(Value::as_bool)
            == Some(true);
        let stream = TokenStream::new(facts, plan, ticket, include_usage);
        let mut response = response(StatusCode::OK, "text/event-stream", AnyBody::Stream(Box::new(stream)));
        response
            .headers_mut()
            .insert("x-accel-buffering", HeaderValue::from_static("no"));
        return response;
    }
    whole(facts, &plan, ticket).await
}

struct Facts {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    prompt: u64,
}

async fn whole(facts: Facts, plan: &Plan, mut ticket: Ticket) -> Response<AnyBody> {
    let mut text = String::new();
    loop {
        match plan.next(ticket.tokens) {
            Next::Token => {
                if let Some(due) = plan.due(ticket.tokens) {
                    sleep_until(due).await;
                }
                text.push_str(&plan.token(ticket.tokens));
                ticket.tokens += 1;
            }
            Next::Hang => {
                ticket.shared().set_hung();
                std::future::pending::<()>().await;
            }
            Next::Cut => return response(StatusCode::OK, "application/json; charset=utf-8", cut_body(ticket)),
            Next::Error => {
                ticket.done();
                return json_response(StatusCode::INTERNAL_SERVER_ERROR, &stream_error());
            }
            Next::End => break,
        }
    }
    let n = ticket.tokens;
    let timings = timings(facts.prompt, n, plan.start.elapsed().as_secs_f64());
    ticket.done();
    let value = match facts.kind {
        Kind::Chat => {
            let mut message = json!({"role": "assistant", "content": text});
            if let Some(reasoning) = &plan.script.reasoning {
                message["reasoning_content"] = reasoning.as_str().into();
            }
            if let Some(call) = &plan.script.tool_call {
                message["content"] = Value::Null;
                message["tool_calls"] = json!([{"type": "function", "function": call, "id": "call_stub"}]);
            }
            let mut choice = json!({"finish_reason": plan.finish, "index": 0, "message": message});
            if let Some(logprobs) = (0..n).map(|at| plan.logprob(at)).collect::<Option<Vec<_>>>()
                && n > 0
            {
                choice["logprobs"] = json!({"content": logprobs});
            }
            json!({"choices": [choice], "created": facts.created,
                "model": facts.model, "system_fingerprint": "b11549-stub", "object": "chat.completion",
                "usage": usage(facts.prompt, n), "id": facts.id, "timings": timings})
        }
        Kind::Text => json!({"choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": plan.finish}],
            "created": facts.created, "model": facts.model, "system_fingerprint": "b11549-stub",
            "object": "text_completion", "usage": usage(facts.prompt, n), "id": facts.id, "timings": timings}),
        Kind::Native => native_final(&facts, plan, n, &text, &timings),
    };
    json_response(StatusCode::OK, &value)
}

fn native_final(facts: &Facts, plan: &Plan, n: u64, text: &str, timings: &Value) -> Value {
    json!({"index": 0, "content": text, "tokens": [], "id_slot": 0, "stop": true, "model": facts.model,
        "tokens_predicted": n, "tokens_evaluated": facts.prompt, "generation_settings": {}, "prompt": "",
        "has_new_line": false, "truncated": false, "stop_type": if plan.finish == "length" { "limit" } else { "eos" },
        "stopping_word": "", "tokens_cached": facts.prompt + n, "timings": timings})
}

/// A whole answer that announces more than it sends.
fn cut_body(ticket: Ticket) -> AnyBody {
    let facts = Facts {
        kind: Kind::Native,
        id: String::new(),
        created: 0,
        model: String::new(),
        prompt: 0,
    };
    let script = Script {
        cut_after: Some(0),
        ..Script::default()
    };
    let plan = Plan::new(&Value::Null, script, None);
    let mut stream = TokenStream::new(facts, plan, ticket, false);
    stream.out.extend_from_slice(b"{\"choices\":[");
    AnyBody::Stream(Box::new(stream))
}

fn stream_error() -> Value {
    json!({"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}})
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Role,
    Reasoning,
    ToolCall,
    Tokens,
    Usage,
    Done,
    Ended,
}

/// One SSE stream. Each chunk is a frame of its own, and between two frames the task yields once, so that every chunk
/// is a write of its own as with the real engine (unless the script says `batch`).
pub(crate) struct TokenStream {
    facts: Facts,
    plan: Plan,
    ticket: Ticket,
    include_usage: bool,
    stage: Stage,
    seq: u64,
    out: BytesMut,
    sleep: Pin<Box<Sleep>>,
    sleeping: bool,
    yielded: bool,
    /// What follows the varying part of a chunk.
    tail: String,
}

impl TokenStream {
    fn new(facts: Facts, plan: Plan, ticket: Ticket, include_usage: bool) -> Self {
        let quoted = |text: &str| Value::from(text).to_string();
        let tail = match facts.kind {
            Kind::Chat => format!(
                "\"created\":{},\"id\":{},\"model\":{},\"system_fingerprint\":\"b11549-stub\",\"object\":\"chat.completion.chunk\"",
                facts.created,
                quoted(&facts.id),
                quoted(&facts.model)
            ),
            Kind::Text => format!(
                "\"created\":{},\"model\":{},\"system_fingerprint\":\"b11549-stub\",\"object\":\"text_completion\",\"id\":{}",
                facts.created,
                quoted(&facts.model),
                quoted(&facts.id)
            ),
            Kind::Native => format!("\"stop\":false,\"id_slot\":-1,\"tokens_evaluated\":{}", facts.prompt),
        };
        let stage = if facts.kind == Kind::Chat {
            Stage::Role
        } else {
            Stage::Tokens
        };
        Self {
            sleep: Box::pin(sleep_until(plan.start)),
            facts,
            plan,
            ticket,
            include_usage,
            stage,
            seq: 0,
            out: BytesMut::new(),
            sleeping: false,
            yielded: true,
            tail,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            // Also before what breaks or ends the stream: the chunk before it must be on its way.
            if !self.yielded && self.plan.script.batch != Some(true) {
                self.yielded = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.out.is_empty() {
                self.yielded = false;
                let piece = self
                    .plan
                    .script
                    .split
                    .unwrap_or(usize::MAX)
                    .clamp(1, self.out.remaining());
                return Poll::Ready(Some(Ok(self.out.split_to(piece).freeze())));
            }
            if self.sleeping {
                std::task::ready!(self.sleep.as_mut().poll(context));
                self.sleeping = false;
                self.emit_token();
                continue;
            }
            match self.stage {
                Stage::Role => {
                    // The real engine sends the role together with the first token.
                    if let Some(due) = self.plan.due(0)
                        && Instant::now() < due
                        && self.plan.next(0) == Next::Token
                    {
                        self.sleep.as_mut().reset(due);
                        std::task::ready!(self.sleep.as_mut().poll(context));
                    }
                    self.choice("\"delta\":{\"role\":\"assistant\",\"content\":null}");
                    self.stage = Stage::Reasoning;
                }
                Stage::Reasoning => {
                    if let Some(reasoning) = &self.plan.script.reasoning {
                        let delta = json!({"reasoning_content": reasoning});
                        self.choice(&format!("\"delta\":{delta}"));
                    }
                    self.stage = Stage::ToolCall;
                }
                Stage::ToolCall => {
                    self.stage = Stage::Tokens;
                    if let Some(call) = &self.plan.script.tool_call {
                        let first = json!({"tool_calls": [{"index": 0, "id": "call_stub", "type": "function",
                            "function": {"name": call["name"], "arguments": ""}}]});
                        let rest = json!({"tool_calls": [{"index": 0, "function": {"arguments": call["arguments"]}}]});
                        self.choice(&format!("\"delta\":{first}"));
                        self.choice(&format!("\"delta\":{rest}"));
                        self.finish();
                    }
                }
                Stage::Tokens => match self.plan.next(self.ticket.tokens) {
                    Next::Token if self.is_gated() => {
                        self.sleep.as_mut().reset(Instant::now() + GATE_LOOK);
                        std::task::ready!(self.sleep.as_mut().poll(context));
                    }
                    Next::Token => match self.plan.due(self.ticket.tokens) {
                        Some(due) => {
                            self.sleep.as_mut().reset(due);
                            self.sleeping = true;
                        }
                        None => self.emit_token(),
                    },
                    Next::End => self.finish(),
                    Next::Hang => {
                        self.ticket.shared().set_hung();
                        return Poll::Pending;
                    }
                    Next::Cut => return Poll::Ready(Some(Err(Cut))),
                    Next::Error => {
                        let _ = write!(self.out, "data: {}\n\n", stream_error());
                        self.stage = Stage::Ended;
                    }
                },
                Stage::Usage => {
                    let (n, prompt) = (self.ticket.tokens, self.facts.prompt);
                    let timings = timings(prompt, n, self.plan.start.elapsed().as_secs_f64());
                    let more = format!("\"usage\":{},\"timings\":{timings}", usage(prompt, n));
                    self.event("\"choices\":[]", &more);
                    self.stage = Stage::Done;
                }
                Stage::Done => {
                    if self.facts.kind != Kind::Native {
                        self.out.extend_from_slice(b"data: [DONE]\n\n");
                    }
                    self.stage = Stage::Ended;
                }
                Stage::Ended => {
                    self.ticket.done();
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// The first token is out, and the gate before the second is closed.
    fn is_gated(&self) -> bool {
        let gate = &self.ticket.shared().faults.token_gate;
        self.ticket.tokens == 1 && gate.as_ref().is_some_and(|gate| !gate.exists())
    }

    fn emit_token(&mut self) {
        let token = Value::from(self.plan.token(self.ticket.tokens));
        let logprob = self.plan.logprob(self.ticket.tokens);
        self.ticket.tokens += 1;
        match self.facts.kind {
            Kind::Chat => {
                let mut choice = format!("\"delta\":{{\"content\":{token}}}");
                if let Some(logprob) = logprob {
                    // Writing to a String cannot fail.
                    let _ = write!(choice, ",\"logprobs\":{{\"content\":[{logprob}]}}");
                }
                self.choice(&choice);
            }
            Kind::Text => self.event(
                &format!("\"choices\":[{{\"text\":{token},\"index\":0,\"logprobs\":null,\"finish_reason\":null}}]"),
                "",
            ),
            Kind::Native => {
                let predicted = format!("\"tokens_predicted\":{}", self.ticket.tokens);
                self.event(
                    &format!("\"index\":0,\"content\":{token},\"tokens\":[{}]", self.ticket.tokens),
                    &predicted,
                );
            }
        }
    }

    fn finish(&mut self) {
        let n = self.ticket.tokens;
        let timings = timings(self.facts.prompt, n, self.plan.start.elapsed().as_secs_f64());
        let finish = self.plan.finish;
        match self.facts.kind {
            Kind::Chat => {
                let head = format!("\"choices\":[{{\"finish_reason\":\"{finish}\",\"index\":0,\"delta\":{{}}}}]");
                let more = if self.include_usage {
                    String::new()
                } else {
                    format!("\"timings\":{timings}")
                };
                self.event(&head, &more);
            }
            Kind::Text => {
                let head = format!(
                    "\"choices\":[{{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"{finish}\"}}]"
                );
                self.event(
                    &head,
                    &format!("\"usage\":{},\"timings\":{timings}", usage(self.facts.prompt, n)),
                );
            }
            Kind::Native => {
                let mut last = native_final(&self.facts, &self.plan, n, "", &timings);
                last["stub_seq"] = self.seq.into();
                last["stub_ns"] = monotonic_ns().into();
                let _ = write!(self.out, "data: {last}\n\n");
            }
        }
        self.stage = if self.facts.kind == Kind::Chat && self.include_usage {
            Stage::Usage
        } else {
            Stage::Done
        };
    }

    /// A chat chunk with one unfinished choice.
    fn choice(&mut self, delta: &str) {
        self.event(
            &format!("\"choices\":[{{\"finish_reason\":null,\"index\":0,{delta}}}]"),
            "",
        );
    }

    /// `data: {HEAD,TAIL,MORE,"stub_seq":…,"stub_ns":…}`; written by hand because the bench counts what a chunk costs.
    fn event(&mut self, head: &str, more: &str) {
        let comma = if more.is_empty() { "" } else { "," };
        // Writing to a buffer that grows cannot fail.
        let _ = write!(
            self.out,
            "data: {{{head},{}{comma}{more},\"stub_seq\":{},\"stub_ns\":{}}}\n\n",
            self.tail,
            self.seq,
            monotonic_ns()
        );
        self.seq += 1;
    }
}

/// An id like the engine's; unlike any other of this machine.
fn random_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "chatcmpl-stub{:08x}{:016x}",
        std::process::id(),
        monotonic_ns() ^ (NEXT.fetch_add(1, Ordering::Relaxed) << 48)
    )
}
