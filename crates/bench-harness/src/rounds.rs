//! Small JSON requests: added latency and CPU per request, at 1 and 32 connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;

use crate::load::{Connection, post};
use crate::targets::{PATIENCE, Target};
use crate::{meter, report, targets};

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

impl Plan {
    pub(crate) fn slice(self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// One visit to one target.
struct Visit {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    cpu_us: f64,
}

/// The order of targets in a round: rotated and flipped, so that none is always first.
pub(crate) fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|n| (n + round) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Runs and prints both connection counts.
pub(crate) async fn requests(plan: Plan) -> Result<()> {
    let targets = targets::all().await?;
    for connections in [1, 32] {
        let mut visits: Vec<Vec<Visit>> = targets.iter().map(|_| Vec::new()).collect();
        for target in &targets {
            visit(target, connections, plan.slice() / 2).await?; // warm-up, not counted
        }
        for round in 0..plan.rounds {
            for index in order(targets.len(), round) {
                visits[index].push(visit(&targets[index], connections, plan.slice()).await?);
            }
        }
        print(&targets, &visits, connections, plan);
    }
    Ok(())
}

fn print(targets: &[Target], visits: &[Vec<Visit>], connections: usize, plan: Plan) {
    let over_rounds = |index: usize, pick: &dyn Fn(&Visit, &Visit) -> f64| -> Vec<f64> {
        visits[index]
            .iter()
            .zip(&visits[0])
            .map(|(own, direct)| pick(own, direct))
            .collect()
    };
    let rows: Vec<Vec<String>> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            vec![
                target.name.to_owned(),
                report::spread(&over_rounds(index, &|v, _| v.p50_us), 1),
                report::spread(&over_rounds(index, &|v, d| v.p50_us - d.p50_us), 1),
                report::spread(&over_rounds(index, &|v, d| v.p50_us / d.p50_us), 2),
                report::spread(&over_rounds(index, &|v, _| v.p99_us), 0),
                report::spread(&over_rounds(index, &|v, _| v.per_second), 0),
                report::spread(&over_rounds(index, &|v, d| v.per_second / d.per_second), 2),
                report::spread(&over_rounds(index, &|v, _| v.cpu_us), 1),
            ]
        })
        .collect();
    report::table(
        &format!(
            "Small JSON chat request, {connections} connection(s), {} interleaved rounds of {} s: median (quartiles)",
            plan.rounds, plan.seconds
        ),
        &[
            "target",
            "p50 µs",
            "added µs",
            "÷ direct",
            "p99 µs",
            "requests/s",
            "÷ direct",
            "CPU µs/request",
        ],
        &rows,
    );
}

async fn visit(target: &Target, connections: usize, slice: Duration) -> Result<Visit> {
    let cpu = meter::cpu_ns(target.pid)?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(hammer(target.address, started + slice));
    }
    let mut all = Histogram::<u64>::new(3)?;
    let what = format!("{}, {connections} connections", target.name);
    targets::within(slice + PATIENCE, what, async {
        while let Some(done) = tasks.join_next().await {
            all.add(done??)?;
        }
        Ok(())
    })
    .await?;
    let elapsed = started.elapsed().as_secs_f64();
    let count = all.len() as f64;
    let cpu = (meter::cpu_ns(target.pid)? - cpu) as f64 / 1e3;
    Ok(Visit {
        p50_us: all.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: all.value_at_quantile(0.99) as f64 / 1e3,
        per_second: count / elapsed,
        cpu_us: cpu / count,
    })
}

async fn hammer(address: SocketAddr, until: Instant) -> Result<Histogram<u64>> {
    let body = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1});
    let request = post(address, "/v1/chat/completions", &body);
    let mut connection = Connection::open(address).await?;
    let mut histogram = Histogram::new(3)?;
    while Instant::now() < until {
        let at = Instant::now();
        connection.ask(&request, b"\"finish_reason\":").await?;
        histogram.record(at.elapsed().as_nanos() as u64)?;
    }
    Ok(histogram)
}
