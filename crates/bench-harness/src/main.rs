//! The project's own benchmark. Every figure is taken against "direct" and a minimal hyper proxy in one interleaved run,
//! every answer is checked, and what is printed are medians of per-round figures (performance guide 5).
//!
//! `cargo xtask bench` builds in release and runs it; `bench-harness --help` names the parts.

#![expect(clippy::print_stdout, reason = "a command line tool talks on its terminal")]

mod load;
mod meter;
mod proxy;
mod report;
mod rounds;
mod startup;
mod streams;
mod targets;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures what LlamaRunner adds, in ratios from one interleaved run")]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds per measurement; each visits every target once, in changing order.
    #[arg(long, default_value_t = 9, global = true)]
    rounds: usize,
    /// Seconds per target and round.
    #[arg(long, default_value_t = 0.6, global = true)]
    seconds: f64,
}

#[derive(Subcommand)]
enum Part {
    /// Small JSON requests at 1 and 32 connections.
    Requests,
    /// Server-sent events: 64 streams as fast as the engine writes.
    Flood,
    /// Memory of idle streams.
    Idle {
        /// Open streams.
        #[arg(long, default_value_t = 1000)]
        streams: usize,
    },
    /// exec to ready line, idle memory, swap overhead.
    Startup,
    /// CPU per event of every translated stream against our own pass-through.
    Translate,
    /// The minimal reference proxy (started by the harness itself).
    #[command(hide = true)]
    Proxy {
        /// Engine address.
        upstream: std::net::SocketAddr,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if let Some(Part::Proxy { upstream }) = cli.part {
            return proxy::serve(upstream).await;
        }
        report::machine();
        let all = cli.part.is_none();
        let plan = rounds::Plan {
            rounds: cli.rounds,
            seconds: cli.seconds,
        };
        if all || matches!(cli.part, Some(Part::Requests)) {
            Box::pin(rounds::requests(plan)).await?;
        }
        if all || matches!(cli.part, Some(Part::Flood)) {
            Box::pin(streams::flood(plan)).await?;
        }
        if all || matches!(cli.part, Some(Part::Translate)) {
            Box::pin(streams::translate(plan)).await?;
        }
        match cli.part {
            Some(Part::Idle { streams: count }) => Box::pin(streams::idle(count)).await?,
            None => Box::pin(streams::idle(1000)).await?,
            Some(_) => {}
        }
        if all || matches!(cli.part, Some(Part::Startup)) {
            Box::pin(startup::measure(plan)).await?;
        }
        Ok(())
    })
}
