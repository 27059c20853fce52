//! The life of the desktop process: start, the event loop, every way to end.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tauri::{AppHandle, RunEvent, WindowEvent};

use crate::arguments::Arguments;
use crate::complain;
use crate::core::Core;
use crate::login::HIDDEN;
use crate::tray::Tray;
use crate::window::{self, Page};
use crate::{login, notice};

/// How long a hidden start waits for a tray host before it shows the window.
const HOST_PATIENCE: Duration = Duration::from_secs(4);
/// A failure at run time.
const FAILED: u8 = 1;

/// Runs until the user quits, a signal comes or the session ends.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match app::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the system gives no threads: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    tauri::async_runtime::set(runtime.handle().clone());
    // The single-instance plugin comes first: a second process hands over its arguments and ends inside `build`.
    let (announce, second) = std::sync::mpsc::channel();
    let builder = tauri::Builder::default();
    let builder = builder.plugin(tauri_plugin_single_instance::init(move |_, arguments, _| {
        // Nobody listens any more when the app is about to end.
        let _ = announce.send(arguments);
    }));
    #[cfg(not(target_os = "linux"))]
    let builder = builder.plugin(
        tauri_plugin_autostart::Builder::new()
            .args([HIDDEN])
            .app_name("LlamaRunner")
            .build(),
    );
    let desktop = match builder.build(context()) {
        Ok(desktop) => desktop,
        Err(error) => {
            complain(&format!("the window system refused: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let app = match runtime.block_on(Box::pin(app::start(arguments.start_options()))) {
        Ok(app) => app,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(error.exit_code());
        }
    };
    // As the headless binary does: scripts and tests learn the ports here. A closed stdout is no reason to end.
    let _ = writeln!(std::io::stdout(), "{}", app.ready().line());
    let core = Core::new(app, runtime.handle().clone());
    let code = event_loop(desktop, &core, arguments, second);
    ExitCode::from(u8::try_from(code).unwrap_or(FAILED))
}

/// `tauri.conf.json`, read at compile time.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "inside the macro: for a thread that cannot be made"
)]
fn context() -> tauri::Context {
    tauri::generate_context!()
}

fn event_loop(
    desktop: tauri::App,
    core: &Core,
    arguments: &Arguments,
    second: std::sync::mpsc::Receiver<Vec<String>>,
) -> i32 {
    let hidden = arguments.hidden || core.app().config().snapshot().desktop.start_hidden;
    let panel = arguments.panel;
    let mut second = Some(second);
    let core = core.clone();
    desktop.run_return(move |handle, event| match event {
        RunEvent::Ready => {
            quit_on_signals(handle, &core);
            if let Some(second) = second.take() {
                follow_second_starts(handle, &core, second);
            }
            login::follow_config(handle, &core);
            let tray = Tray::start(handle, &core, panel);
            if hidden {
                show_without_tray(handle, &core, tray);
            } else {
                window::show(handle, &core, Page::Any);
            }
        }
        RunEvent::WindowEvent {
            event: WindowEvent::Destroyed,
            ..
        } => notice::window_closed(&core),
        // The last window is closed: the tray and the listeners live on. A quit carries a code and passes.
        RunEvent::ExitRequested { code: None, api, .. } => api.prevent_exit(),
        // The one place that ends the engines.
        RunEvent::Exit => core.shut_down(),
        _ => {}
    })
}

/// A hidden start without a tray would leave nothing to click on: the window comes instead, unless a host appears soon
/// (at login the panel often starts after us).
fn show_without_tray(handle: &AppHandle, core: &Core, tray: Option<Tray>) {
    let (at, shown) = (handle.clone(), core.clone());
    core.spawn(async move {
        let up = |tray: &Option<Tray>| tray.as_ref().is_some_and(Tray::is_up);
        if !up(&tray) {
            tokio::time::sleep(HOST_PATIENCE).await;
        }
        if !up(&tray) {
            window::show(&at, &shown, Page::Any);
        }
    });
}

/// A second start opens the window, unless it came from the login.
fn follow_second_starts(handle: &AppHandle, core: &Core, second: std::sync::mpsc::Receiver<Vec<String>>) {
    let (at, shown) = (handle.clone(), core.clone());
    let follow = move || {
        while let Ok(arguments) = second.recv() {
            if !arguments.iter().any(|argument| argument == HIDDEN) {
                window::show(&at, &shown, Page::Any);
            }
        }
    };
    // A thread of its own: the plugin calls back on the bus connection's thread, which must not wait for the window.
    if let Err(error) = std::thread::Builder::new().name("second-starts".into()).spawn(follow) {
        tracing::warn!(%error, "a second start will not open the window");
    }
}

#[cfg(unix)]
fn quit_on_signals(handle: &AppHandle, core: &Core) {
    use tokio::signal::unix::{SignalKind, signal};

    let (at, ended) = (handle.clone(), core.clone());
    core.spawn(async move {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
        let mut asked = false;
        loop {
            let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(any).await;
            // The second signal cuts running answers.
            if asked {
                ended.app().hurry();
            }
            asked = true;
            at.exit(0);
        }
    });
}

#[cfg(not(unix))]
fn quit_on_signals(_handle: &AppHandle, _core: &Core) {}
