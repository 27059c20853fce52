//! The one task that owns an engine process from start to end (promise R6): nobody else starts, watches or ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{FailureReport, LoadedLaunch, RunnerError};
use engines::{FailureCause, FailurePhase, Program, Pulse, ReadyFacts, StartSignal};
use http::{HeaderMap, Method};
use scheduler::Event;
use supervisor::{Child, ChildSpec, ExitReport, OutputLine};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::core::Core;
use crate::instance::{Instance, Link, Wish};
use crate::probe;
use crate::upstream::{Pool, Prefix};

/// A ready engine must answer its first request within this time.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// Waits between polls of an engine that does not announce that it is ready.
const FIRST_POLL: Duration = Duration::from_millis(50);
const LONGEST_POLL: Duration = Duration::from_secs(2);
/// How often a working engine is looked at.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Waits for the answer to an out-of-band probe: one batch of a slow machine may take that long.
const SHORTEST_PROBE: Duration = Duration::from_secs(2);
const LONGEST_PROBE: Duration = Duration::from_mins(1);

/// A start that did not work.
struct Failed {
    report: FailureReport,
    /// With less memory it may work.
    out_of_memory: bool,
}

/// A start that did.
struct Started {
    child: Child,
    launch: LoadedLaunch,
    program: Program,
}

pub(crate) async fn run(core: Arc<Core>, instance: Arc<Instance>) {
    let id = instance.id;
    match start(&core, &instance).await {
        Ok(Started { child, launch, program }) => {
            core.dispatch(Event::Ready { instance: id, launch });
            let report = watch_until_end(&core, &instance, &child, &program).await;
            instance.exit.send_replace(Some(Arc::new(report.clone())));
            core.dispatch(Event::Exited { instance: id, report });
        }
        Err(report) => {
            instance.exit.send_replace(Some(Arc::new(report.clone())));
            core.dispatch(Event::StartFailed { instance: id, report });
        }
    }
    if let Some(link) = instance.link.get() {
        link.pool.close();
    }
    core.lock().instances.remove(&id);
    core.forget_if_gone(&instance.model);
    core.announce();
    instance.gone.cancel();
}

/// A failure without a process.
fn plain(reason: impl Into<String>, retryable: bool) -> FailureReport {
    FailureReport {
        reason: reason.into(),
        code: None,
        log: Vec::new(),
        exit_code: None,
        signal: None,
        retryable,
    }
}

fn cancelled() -> FailureReport {
    plain("The load was cancelled.", true)
}

/// Ends when the scheduler no longer wants the process.
async fn unwanted(wish: &mut watch::Receiver<Wish>) {
    // The sender lives in `Instance`, which the caller holds.
    let _ = wish.wait_for(|wish| *wish > Wish::Run).await.map(drop);
}

async fn start(core: &Arc<Core>, instance: &Arc<Instance>) -> Result<Started, FailureReport> {
    let mut wish = instance.wish.subscribe();
    // An engine that is installed for this load: the first part of the way.
    let installing = |fraction: f32| {
        let progress = fraction * engines::INSTALLED;
        core.dispatch(Event::Progress {
            instance: instance.id,
            progress,
        });
    };
    let program = tokio::select! {
        biased;
        () = unwanted(&mut wish) => return Err(cancelled()),
        program = core.deps.engines.program(&instance.model, installing) => program.map_err(|error| {
            tracing::error!(model = %instance.model.key, %error, "no engine");
            FailureReport { code: error.code(), ..plain(RunnerError::from(&error).message, false) }
        })?,
    };
    // Measured now: the old process has been reaped before this start was allowed (promise R11).
    let mut launch = engines::plan(&instance.model, &instance.options, &core.budget());
    let mut attempt = 0;
    loop {
        match start_with(core, instance, &program, &mut launch, &mut wish).await {
            Ok(child) => return Ok(Started { child, launch, program }),
            Err(Failed {
                report,
                out_of_memory: false,
            }) => return Err(report),
            Err(Failed {
                report,
                out_of_memory: true,
            }) => {
                attempt += 1;
                match program.degrade(&instance.model, &launch, attempt) {
                    Some(next) => {
                        tracing::warn!(model = %instance.model.key, context = next.context, parallel = next.parallel,
                            "out of memory, trying with less");
                        launch = next;
                    }
                    None => return Err(report),
                }
            }
        }
    }
}

/// One process; ended and reaped when this fails.
async fn start_with(
    core: &Arc<Core>,
    instance: &Arc<Instance>,
    program: &Program,
    launch: &mut LoadedLaunch,
    wish: &mut watch::Receiver<Wish>,
) -> Result<Child, Failed> {
    let failed = |report| Failed {
        report,
        out_of_memory: false,
    };
    let begun = Instant::now();
    let key = random_key().ok_or_else(|| failed(plain("The system gives no random numbers.", true)))?;
    let settings = core.deps.engines.settings();
    let command = program
        .launch(&instance.model, launch, &key, &settings)
        .stop_grace(core.settings().stop_grace);
    let spec = ChildSpec {
        label: instance.model.key.to_string(),
        program: command.program,
        args: command.args,
        env: command.env,
        cwd: None,
        stop: command.stop,
        log: core.log_ring(instance.model.instance_key()),
    };
    let supervisor = core.deps.supervisor.clone().with_line_decoder(program.line_decoder());
    let (child, lines) = supervisor.spawn(spec).await.map_err(|error| {
        tracing::error!(%error, "cannot start the engine");
        failed(plain(
            "The engine program could not be started. Run `llama-runner doctor` to see why.",
            error.is_retryable(),
        ))
    })?;
    instance.set_child(child.clone());

    let readiness = async {
        let facts = wait_ready(core, instance, program, &child, lines, &key).await?;
        first_answer(program, launch, &facts, &key).await?;
        Ok::<_, String>(facts)
    };
    let facts = tokio::select! {
        biased;
        () = unwanted(wish) => {
            child.kill().await;
            return Err(failed(cancelled()));
        }
        exit = child.wait() => {
            let (cause, report) = program.ended(&exit, FailurePhase::Starting, &instance.model);
            return Err(Failed { report, out_of_memory: cause == FailureCause::OutOfMemory });
        }
        ready = readiness => match ready {
            Ok(facts) => facts,
            Err(reason) => {
                let exit = child.kill().await;
                return Err(failed(FailureReport { log: exit.last_lines, ..plain(reason, true) }));
            }
        },
    };
    if let Some(context) = facts.context {
        launch.context = context;
    }
    let link = Link {
        address: facts.address,
        prefix: Prefix::new(facts.address, &key),
        key,
        launch: launch.clone(),
        pool: Pool::new(launch.parallel.max(1) as usize),
        ready_at: Instant::now(),
        ready_at_ms: telemetry::now_ms(),
        load_time: begun.elapsed(),
    };
    // A retry with less memory never got this far.
    let _ = instance.link.set(Arc::new(link));
    tracing::info!(model = %instance.model.key, context = launch.context, parallel = launch.parallel,
        ms = begun.elapsed().as_millis() as u64, "the engine is ready");
    Ok(child)
}

/// 256 random bits in hex: a fresh key for each start (promise S4).
fn random_key() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    Some(
        bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect(),
    )
}

/// Follows the start until the engine answers. Fails when there is neither output nor growth of memory for the stall
/// time (promise R8).
async fn wait_ready(
    core: &Arc<Core>,
    instance: &Instance,
    program: &Program,
    child: &Child,
    mut lines: mpsc::Receiver<OutputLine>,
    key: &str,
) -> Result<ReadyFacts, String> {
    let mut start = program.watch();
    let health = program.health_path();
    let mut listening: Option<SocketAddr> = start.address();
    let mut poll_wait = FIRST_POLL;
    let mut next_poll = tokio::time::Instant::now();
    let mut open = true;
    let mut memory = child.memory_bytes();
    let mut last_sign = tokio::time::Instant::now();
    loop {
        let stall = core.settings().stall_timeout;
        tokio::select! {
            biased;
            line = lines.recv(), if open => {
                let Some(line) = line else {
                    open = false;
                    continue;
                };
                last_sign = tokio::time::Instant::now();
                match start.on_line(&line) {
                    Some(StartSignal::Progress(progress)) => {
                        core.dispatch(Event::Progress { instance: instance.id, progress });
                    }
                    Some(StartSignal::Listening(address)) => {
                        listening = Some(address);
                        next_poll = tokio::time::Instant::now() + poll_wait;
                    }
                    Some(StartSignal::Ready(facts)) => return Ok(facts),
                    Some(StartSignal::Sleeping) | None => {}
                }
            }
            () = tokio::time::sleep_until(next_poll), if listening.is_some() => {
                if let Some(address) = listening
                    && probe::get(address, key, &health, LONGEST_POLL).await == Some(200)
                {
                    return Ok(ReadyFacts { address, context: None });
                }
                poll_wait = (poll_wait * 2).min(LONGEST_POLL);
                next_poll = tokio::time::Instant::now() + poll_wait;
            }
            () = tokio::time::sleep_until(last_sign + stall) => {
                let now = child.memory_bytes();
                if now <= memory {
                    return Err(format!(
                        "The engine made no headway while loading the model for {} s. It was ended.",
                        stall.as_secs_f32()
                    ));
                }
                memory = now;
                last_sign = tokio::time::Instant::now();
            }
        }
    }
}

/// Proof that the process behind the address is ours, by its key (promise R7), and that it can work where only work tells.
async fn first_answer(program: &Program, launch: &LoadedLaunch, facts: &ReadyFacts, key: &str) -> Result<(), String> {
    match probe::get(facts.address, key, &program.first_question(), FIRST_ANSWER).await {
        Some(200) => {}
        Some(status) => return Err(format!("The engine refused its first request (status {status}).")),
        None => return Err("The engine did not answer its first request.".into()),
    }
    let Some((path, body)) = program.warm_up(launch.mode) else {
        return Ok(());
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    // The first token compiles GPU kernels.
    let warm_up = probe::send(
        facts.address,
        key,
        &Method::POST,
        path,
        &headers,
        Bytes::from_static(body),
    );
    match timeout(FIRST_ANSWER * 4, warm_up).await {
        Ok(Some(200)) => Ok(()),
        Ok(Some(status)) => Err(format!(
            "The engine loaded the model but cannot use it (status {status})."
        )),
        Ok(None) | Err(_) => Err("The engine loaded the model but did not answer a first request.".into()),
    }
}

/// Watches a ready engine until it has ended, by itself, by the scheduler's wish, or because it hangs.
async fn watch_until_end(core: &Core, instance: &Instance, child: &Child, program: &Program) -> FailureReport {
    let mut wish = instance.wish.subscribe();
    let pulse = program.pulse();
    let mut quiet_since = Instant::now();
    let mut asked = Instant::now();
    let ended = |exit| program.ended(&exit, FailurePhase::Running, &instance.model).1;
    loop {
        let watchdog = core.settings().watchdog;
        let look = (watchdog / 8).clamp(Duration::from_millis(10), LONGEST_LOOK);
        let watching = instance.watching.load(std::sync::atomic::Ordering::SeqCst);
        tokio::select! {
            biased;
            exit = child.wait() => return ended(exit),
            () = unwanted(&mut wish) => {
                return ended(end(instance, child, &mut wish).await);
            }
            () = instance.activity.notified(), if !watching => {
                instance.watching.store(true, std::sync::atomic::Ordering::SeqCst);
                quiet_since = Instant::now();
                asked = Instant::now();
            }
            () = tokio::time::sleep(look), if watching => {
                let progress = instance.take_progress();
                if progress || instance.active() == 0 {
                    quiet_since = Instant::now();
                }
                let no_connections = instance.link.get().is_none_or(|link| link.pool.sweep());
                if instance.active() == 0 && !progress && no_connections {
                    instance.watching.store(false, std::sync::atomic::Ordering::SeqCst);
                    // A request that began in between saw `watching` and did not notify.
                    if instance.active() > 0 {
                        instance.activity.notify_one();
                    }
                    continue;
                }
                let quiet = quiet_since.elapsed() >= watchdog;
                // An engine that knows whether it is stuck is asked although it gives signs of life.
                let turn = pulse.tells && asked.elapsed() >= watchdog / 3 && instance.active() > 0;
                if quiet || turn {
                    let silent_for = quiet.then(|| quiet_since.elapsed());
                    if let Some(why) = hangs(instance, child, &pulse, watchdog, silent_for, &mut wish).await {
                        let reason = format!("The engine hung: {why}. It was ended.");
                        let exit = child.kill().await;
                        return FailureReport { log: exit.last_lines, ..plain(reason, true) };
                    }
                    asked = Instant::now();
                    if quiet {
                        quiet_since = Instant::now();
                    }
                }
            }
        }
    }
}

/// Asks the engine out of band whether it still works; why not, if it does not. Being slow is no fault: an answer, or any
/// byte meanwhile, acquits (promise R9), unless the engine itself says that it is stuck. `silent_for`: it has given no sign
/// of life for that long, so that no answer condemns it.
async fn hangs(
    instance: &Instance,
    child: &Child,
    pulse: &Pulse,
    watchdog: Duration,
    silent_for: Option<Duration>,
    wish: &mut watch::Receiver<Wish>,
) -> Option<String> {
    let link = instance.link.get()?;
    let patience = watchdog.clamp(SHORTEST_PROBE, LONGEST_PROBE);
    let answer = tokio::select! {
        answer = probe::get(link.address, &link.key, &pulse.path, patience) => answer,
        () = unwanted(wish) => return None,
        _ = child.wait() => return None,
    };
    match answer {
        Some(500..) if pulse.tells => Some("it says that its work does not go on".into()),
        Some(_) => None,
        None if instance.take_progress() || instance.active() == 0 => None,
        None => silent_for.map(|silent| {
            let seconds = silent.as_secs();
            format!("it sent nothing for {seconds} s and did not answer when asked")
        }),
    }
}

/// Ends the process: politely, unless or until the scheduler wants it killed.
async fn end(instance: &Instance, child: &Child, wish: &mut watch::Receiver<Wish>) -> ExitReport {
    if let Some(link) = instance.link.get() {
        // An engine with open connections may not end by itself (engine guide 2.1).
        link.pool.close();
    }
    let kill = async {
        // The guard that `wait_for` returns must not live on.
        let _ = wish.wait_for(|wish| *wish == Wish::Kill).await.map(drop);
    };
    tokio::select! {
        biased;
        () = kill => {}
        exit = child.stop() => return exit,
    }
    child.kill().await
}
