//! Server-sent events: throughput and CPU per event in a flood, the cost of translation, memory of idle streams.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::load::{Connection, post};
use crate::rounds::{Plan, order};
use crate::targets::{PATIENCE, Target};
use crate::{meter, report, targets};

const STREAMS: usize = 64;
const TOKENS: u64 = 1000;

/// A stream of the stub engine in llama-server's own form: so many tokens, so many a second (0: as fast as they are taken).
fn stream_body(model: &str, tokens: u64, rate: f64) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": true,
        // Without a length the stub never ends.
        "max_tokens": tokens, "stub": {"tokens": tokens, "rate": rate}})
}

/// How a stream is asked for and how its events are counted.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    path: &'static str,
    body: fn(u64) -> Value,
    marker: &'static [u8],
    end: &'static [u8],
}

/// llama-server's own form: what passes through. The stub's text pieces are ` tok0`, ` tok1`, …
const OPENAI: Form = Form {
    name: "pass-through (OpenAI)",
    body: |tokens| stream_body("tiny-chat", tokens, 0.0),
    path: "/v1/chat/completions",
    marker: b"\"content\":\" tok",
    end: b"data: [DONE]",
};
/// The forms that are translated.
const TRANSLATED: [Form; 5] = [
    Form {
        name: "Ollama",
        path: "/api/chat",
        body: |tokens| {
            json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}],
                "options": {"num_predict": tokens}})
        },
        marker: b"\"content\":\" tok",
        end: b"\"done\":true",
    },
    Form {
        name: "Anthropic",
        path: "/v1/messages",
        body: |tokens| {
            json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens,
                "stream": true})
        },
        marker: b"\"text\":\" tok",
        end: b"\"type\":\"message_stop\"",
    },
    Form {
        name: "OpenAI responses",
        path: "/v1/responses",
        // Not kept: what is measured is the stream, not the database.
        body: |tokens| json!({"model": "tiny-chat", "input": "Hello", "max_output_tokens": tokens, "stream": true, "store": false}),
        marker: b"\"delta\":\" tok",
        // The length ends it, not the model.
        end: b"event: response.incomplete",
    },
    Form {
        name: "LM Studio v1",
        path: "/api/v1/chat",
        body: |tokens| json!({"model": "tiny-chat", "input": "Hello", "max_output_tokens": tokens, "stream": true, "store": false}),
        marker: b"\"type\":\"message.delta\",\"content\":\" tok",
        end: b"\"type\":\"chat.end\"",
    },
    Form {
        name: "LM Studio v0",
        path: "/api/v0/chat/completions",
        body: |tokens| stream_body("tiny-chat", tokens, 0.0),
        marker: b"\"content\":\" tok",
        end: b"data: [DONE]",
    },
];

struct Visit {
    events_per_second: f64,
    cpu_us: f64,
}

async fn flood_once(target: &Target, form: Form) -> Result<Visit> {
    let cpu = meter::cpu_ns(target.pid)?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        tasks.spawn(one_stream(target.address, form));
    }
    let mut events = 0;
    targets::within(
        PATIENCE * 3,
        format!("{}, flood of {}", target.name, form.path),
        async {
            while let Some(done) = tasks.join_next().await {
                events += done??;
            }
            Ok(())
        },
    )
    .await?;
    ensure!(events == TOKENS * STREAMS as u64, "{events} events");
    let seconds = started.elapsed().as_secs_f64();
    let cpu = (meter::cpu_ns(target.pid)? - cpu) as f64 / 1e3;
    Ok(Visit {
        events_per_second: events as f64 / seconds,
        cpu_us: cpu / events as f64,
    })
}

async fn one_stream(address: SocketAddr, form: Form) -> Result<u64> {
    let request = post(address, form.path, &(form.body)(TOKENS));
    Connection::open(address)
        .await?
        .stream(&request, form.marker, form.end)
        .await
}

/// 64 streams of 1,000 events as fast as they come.
pub(crate) async fn flood(plan: Plan) -> Result<()> {
    let targets = targets::all().await?;
    let mut visits: Vec<Vec<Visit>> = targets.iter().map(|_| Vec::new()).collect();
    for target in &targets {
        flood_once(target, OPENAI).await?;
    }
    for round in 0..plan.rounds {
        for index in order(targets.len(), round) {
            visits[index].push(flood_once(&targets[index], OPENAI).await?);
        }
    }
    let rows: Vec<Vec<String>> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            let pick = |f: &dyn Fn(&Visit, &Visit) -> f64| -> Vec<f64> {
                visits[index]
                    .iter()
                    .zip(&visits[0])
                    .map(|(own, direct)| f(own, direct))
                    .collect()
            };
            vec![
                target.name.to_owned(),
                report::spread(&pick(&|v, _| v.events_per_second), 0),
                report::spread(&pick(&|v, d| v.events_per_second / d.events_per_second), 2),
                report::spread(&pick(&|v, _| v.cpu_us), 2),
            ]
        })
        .collect();
    report::table(
        &format!(
            "SSE flood, {STREAMS} streams × {TOKENS} events, {} interleaved rounds: median (quartiles)",
            plan.rounds
        ),
        &["target", "events/s", "÷ direct", "CPU µs/event"],
        &rows,
    );
    Ok(())
}

/// Every translated stream against our own pass-through, in one run.
pub(crate) async fn translate(plan: Plan) -> Result<()> {
    let target = targets::runner(0, json!({}), &[]).await?.target;
    let forms: Vec<Form> = std::iter::once(OPENAI).chain(TRANSLATED).collect();
    let mut visits: Vec<Vec<Visit>> = forms.iter().map(|_| Vec::new()).collect();
    for form in &forms {
        flood_once(&target, *form).await?;
    }
    for round in 0..plan.rounds {
        for index in order(forms.len(), round) {
            visits[index].push(flood_once(&target, forms[index]).await?);
        }
    }
    let rows: Vec<Vec<String>> = forms
        .iter()
        .zip(&visits)
        .map(|(form, own)| {
            let cpu: Vec<f64> = own.iter().map(|v| v.cpu_us).collect();
            let ratio: Vec<f64> = own.iter().zip(&visits[0]).map(|(v, p)| v.cpu_us / p.cpu_us).collect();
            let rate: Vec<f64> = own.iter().map(|v| v.events_per_second).collect();
            vec![
                form.name.to_owned(),
                report::spread(&rate, 0),
                report::spread(&cpu, 2),
                report::spread(&ratio, 2),
            ]
        })
        .collect();
    report::table(
        &format!(
            "Translation, {STREAMS} streams × {TOKENS} events, {} interleaved rounds: median (quartiles)",
            plan.rounds
        ),
        &["form", "events/s", "CPU µs/event", "÷ pass-through"],
        &rows,
    );
    Ok(())
}

/// A stream that has said something and goes on in silence.
async fn silent(target: &Target, request: &[u8]) -> Result<Connection> {
    targets::within(PATIENCE, format!("{}, idle stream", target.name), async {
        let mut connection = Connection::open(target.address).await?;
        connection.first_piece(request).await?;
        Ok(connection)
    })
    .await
}

/// Memory per stream that is open and silent, and what stays after all have closed.
pub(crate) async fn idle(count: usize) -> Result<()> {
    let mut rows = Vec::new();
    let direct = targets::direct().await?;
    let proxy = targets::hyper(direct.address).await?;
    // One engine has only so many slots.
    let models = count / targets::PARALLEL + 1;
    let runner = targets::runner(models, json!({"scheduler": {"max_loaded_models": models}}), &[])
        .await?
        .target;
    for target in [&proxy, &runner] {
        let requests: Vec<_> = (0..models)
            .map(|n| {
                post(
                    target.address,
                    OPENAI.path,
                    &stream_body(&format!("copy-{n}"), 3, 0.001),
                )
            })
            .collect();
        let mut warm = Vec::new();
        for request in &requests {
            warm.push(silent(target, request).await?);
        }
        drop(warm);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = meter::memory(target.pid)?.1;
        let mut open = Vec::with_capacity(count);
        for n in 0..count {
            open.push(silent(target, &requests[n % models]).await?);
        }
        let during = meter::memory(target.pid)?.1;
        drop(open);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = meter::memory(target.pid)?.1;
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        rows.push(vec![
            target.name.to_owned(),
            format!("{:.1}", kib(before) / 1024.0),
            format!("{:.1}", kib(during.saturating_sub(before)) / count as f64),
            format!("{:.1}", kib(after) / 1024.0),
        ]);
    }
    report::table(
        &format!("{count} idle SSE streams (PSS)"),
        &["target", "MiB before", "KiB per stream", "MiB 10 s after closing"],
        &rows,
    );
    Ok(())
}
