//! exec to ready line, idle memory, and what a swap costs beyond the engine's own load.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::load::{Connection, post};
use crate::rounds::Plan;
use crate::targets::{PATIENCE, Target};
use crate::{meter, report, targets};

/// The stub engine's load time in the swap measurement.
const LOAD: Duration = Duration::from_millis(100);

/// Runs and prints.
pub(crate) async fn measure(plan: Plan) -> Result<()> {
    let (mut ready, mut rss, mut pss) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let runner = targets::runner(0, json!({}), &[]).await?;
        ready.push(runner.ready_after.as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (resident, proportional) = meter::memory(runner.target.pid)?;
        rss.push(resident as f64 / 1_048_576.0);
        pss.push(proportional as f64 / 1_048_576.0);
    }
    report::table(
        &format!("Start, {} times: median (quartiles)", plan.rounds),
        &["exec → ready line, ms", "idle RSS, MiB", "idle PSS, MiB"],
        &[vec![
            report::spread(&ready, 1),
            report::spread(&rss, 1),
            report::spread(&pss, 1),
        ]],
    );
    swap(plan).await
}

async fn once(target: &Target, path: &str, body: &Value, expected: &[u8]) -> Result<()> {
    targets::within(PATIENCE, format!("{} {path}", target.name), async {
        let mut connection = Connection::open(target.address).await?;
        connection.ask(&post(target.address, path, body), expected).await
    })
    .await
}

/// One model at a time; asking for the other in turn. The engine alone is timed beside it, round by round.
async fn swap(plan: Plan) -> Result<()> {
    let load_ms = LOAD.as_millis().to_string();
    let target = targets::runner(
        0,
        json!({"scheduler": {"max_loaded_models": 1}}),
        &[("STUB_LOAD_MS", &load_ms)],
    )
    .await?
    .target;
    let (mut ours, mut alone, mut overhead) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let model = if round % 2 == 0 { "tiny-chat" } else { "tiny-embed" };
        let (path, body, expected): (_, _, &[u8]) = if model == "tiny-chat" {
            (
                "/v1/chat/completions",
                json!({"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
                b"choices",
            )
        } else {
            ("/v1/embeddings", json!({"model": model, "input": "cat"}), b"embedding")
        };
        let at = Instant::now();
        once(&target, path, &body, expected).await?;
        let own = at.elapsed().as_secs_f64() * 1e3;
        let at = Instant::now();
        let engine = targets::direct_loading(&load_ms).await?;
        let chat = json!({"model": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
        once(&engine, "/v1/chat/completions", &chat, b"choices").await?;
        let bare = at.elapsed().as_secs_f64() * 1e3;
        if round > 0 {
            ours.push(own);
            alone.push(bare);
            overhead.push(own - bare);
        }
    }
    report::table(
        &format!(
            "Swap with an engine that loads for {} ms, {} rounds: median (quartiles)",
            LOAD.as_millis(),
            plan.rounds
        ),
        &[
            "request → answer through us, ms",
            "engine alone: spawn → answer, ms",
            "overhead (stopping the other included), ms",
        ],
        &[vec![
            report::spread(&ours, 1),
            report::spread(&alone, 1),
            report::spread(&overhead, 1),
        ]],
    );
    Ok(())
}
