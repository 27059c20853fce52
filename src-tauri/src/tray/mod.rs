//! The tray icon: what it shows ([`view`]), its menu ([`menu`]), its pictures ([`icons`]).
//!
//! Never fatal: without a tray host the app serves on, the window is shown instead, and the tray appears as soon as a host
//! does (desktop guide 3). Changes flow one way: core → view → menu, at most four times a second.

mod host;
mod icons;
mod menu;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Event, EventKind};
use tauri::AppHandle;
use tauri::tray::{MouseButton, MouseButtonState, TrayIcon, TrayIconBuilder, TrayIconEvent};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::arguments::Panel;
use crate::core::Core;
use crate::login;
use crate::tray::icons::Icons;
use crate::tray::menu::{Command, TrayMenu};
use crate::tray::view::{Emblem, Now, View, Watcher};
use crate::window::{self, Page};

/// The item's name on the bus.
const ID: &str = "llama-runner";
/// Shortest time between two updates.
const PACE: Duration = Duration::from_millis(250);
/// Length of a frame of the loading emblem.
const FRAME: Duration = Duration::from_millis(500);
/// After the last event things have calmed down.
const SETTLED: Duration = Duration::from_millis(1500);
/// Without events and countdowns nothing changes; this look is for whatever was forgotten.
const LONGEST_SLEEP: Duration = Duration::from_mins(10);

/// The tray, whether or not a host shows it at the moment.
#[derive(Clone)]
pub(crate) struct Tray {
    inner: Arc<Inner>,
}

struct Inner {
    handle: AppHandle,
    core: Core,
    icons: Icons,
    state: Mutex<State>,
}

struct State {
    icon: Option<TrayIcon>,
    menu: TrayMenu,
    watcher: Watcher,
    /// The last view, whether shown or not.
    view: View,
    /// The view that the icon has now, with its frame.
    shown: Option<(View, usize)>,
}

impl Tray {
    /// Puts up the tray, on the main thread. Without a host now, one that comes later is used.
    pub(crate) fn start(handle: &AppHandle, core: &Core, panel: Panel) -> Option<Self> {
        let menu = match TrayMenu::new(handle, core, login::enabled(handle)) {
            Ok(menu) => menu,
            Err(error) => {
                tracing::warn!(%error, "no tray: its menu could not be made");
                return None;
            }
        };
        let mut watcher = Watcher::default();
        let view = watcher.view(&core.facts(), Now::read());
        let state = State {
            icon: None,
            menu,
            watcher,
            view,
            shown: None,
        };
        let inner = Inner {
            handle: handle.clone(),
            core: core.clone(),
            icons: Icons::for_panel(panel),
            state: Mutex::new(state),
        };
        let tray = Self { inner: Arc::new(inner) };
        let clicked = tray.clone();
        handle.on_menu_event(move |_, event| clicked.command(event.id().as_ref()));
        let clicked = tray.clone();
        handle.on_tray_icon_event(move |_, event| clicked.click(&event));
        tray.put_up();
        let following = tray.clone();
        core.spawn(async move { following.follow().await });
        let hosts = tray.clone();
        core.spawn(async move { host::watch(move || hosts.put_up_soon()).await });
        Some(tray)
    }

    /// Does a host show the icon?
    pub(crate) fn is_up(&self) -> bool {
        self.state().icon.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take the tray with it.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the icon with the host, on the main thread, unless it is there.
    fn put_up(&self) {
        let mut state = self.state();
        if state.icon.is_some() {
            return;
        }
        let view = state.view.clone();
        // Before the icon exists: changes to the menu are then part of its first layout.
        state.menu.show(&self.inner.handle, &view);
        let built = TrayIconBuilder::with_id(ID)
            .icon(self.inner.icons.image(view.emblem, 0))
            .title("LlamaRunner")
            .tooltip(&view.status)
            .menu(state.menu.root())
            .show_menu_on_left_click(false)
            .build(&self.inner.handle);
        match built {
            Ok(icon) => {
                state.icon = Some(icon);
                state.shown = Some((view, 0));
                tracing::info!("tray icon registered");
            }
            Err(error) => tracing::warn!(%error, "no tray host; the tray icon appears when one does"),
        }
    }

    fn put_up_soon(&self) {
        let tray = self.clone();
        self.on_main_thread(move || tray.put_up());
    }

    fn on_main_thread(&self, work: impl FnOnce() + Send + 'static) {
        if let Err(error) = self.inner.handle.run_on_main_thread(work) {
            tracing::debug!(%error, "the event loop has ended");
        }
    }

    /// Follows the core until it ends.
    async fn follow(&self) {
        let mut events = self.inner.core.events();
        let mut frame = 0;
        // Memory is measured now and then, not with each event: one more look when things have calmed down.
        let mut settling = true;
        loop {
            let now = Now::read();
            let facts = self.inner.core.facts();
            let wake = {
                let mut state = self.state();
                state.view = state.watcher.view(&facts, now);
                let animated = state.view.emblem == Emblem::Loading && self.inner.icons.animated();
                frame = if animated { frame + 1 } else { 0 };
                if animated {
                    Some(now.at + FRAME)
                } else {
                    state.watcher.wake(&state.view, now.at)
                }
            };
            drop(facts);
            let tray = self.clone();
            self.on_main_thread(move || tray.refresh(frame));
            // At most four updates a second, however many events there are.
            tokio::time::sleep(PACE).await;
            let calm = settling.then(|| now.at + SETTLED);
            let wake = wake.into_iter().chain(calm).min().unwrap_or(now.at + LONGEST_SLEEP);
            settling = tokio::select! {
                more = next_change(&mut events) => {
                    if !more {
                        return;
                    }
                    true
                }
                () = tokio::time::sleep_until(wake.into()) => false,
            };
        }
    }

    /// Shows the view, on the main thread: only what differs is sent.
    fn refresh(&self, frame: usize) {
        let mut state = self.state();
        let Some(icon) = state.icon.clone() else {
            return;
        };
        let view = state.view.clone();
        let before = state.shown.take();
        let (old, old_frame) = match &before {
            Some((view, frame)) => (Some(view), *frame),
            None => (None, usize::MAX),
        };
        if old != Some(&view) {
            state.menu.show(&self.inner.handle, &view);
        }
        let mut done = Ok(());
        if old.is_none_or(|old| old.emblem != view.emblem) || (view.emblem == Emblem::Loading && frame != old_frame) {
            done = icon.set_icon(Some(self.inner.icons.image(view.emblem, frame)));
        }
        if old.is_none_or(|old| old.status != view.status) {
            done = done.and(icon.set_tooltip(Some(&view.status)));
        }
        if let Err(error) = done {
            tracing::warn!(%error, "the tray icon could not be changed");
        }
        state.shown = Some((view, frame));
    }

    fn click(&self, event: &TrayIconEvent) {
        if let TrayIconEvent::Click {
            button: MouseButton::Left,
            button_state: MouseButtonState::Up,
            ..
        } = event
        {
            self.open(Page::Any);
        }
    }

    /// Opens the window. Problems count as seen then: Home shows them all.
    fn open(&self, page: Page) {
        self.state().watcher.problems_seen();
        window::show(&self.inner.handle, &self.inner.core, page);
    }

    /// One menu entry was chosen. Never blocks: commands run in the background.
    fn command(&self, id: &str) {
        let Some(command) = Command::parse(id) else {
            return;
        };
        let model = |slot: usize| self.state().view.models.get(slot).map(|line| line.key.clone());
        let core = &self.inner.core;
        match command {
            Command::Open => self.open(Page::Any),
            Command::Models => self.open(Page::Models),
            Command::Start(slot) => {
                if let Some(key) = model(slot) {
                    core.start(key);
                }
            }
            Command::Stop(slot) => {
                if let Some(key) = model(slot) {
                    core.stop(vec![key]);
                }
            }
            Command::Chat(slot) => {
                if let Some(key) = model(slot) {
                    self.open(Page::Chat(key.as_str().into()));
                }
            }
            Command::CopyName(slot) => self.copy(model(slot).map(|key| key.as_str().into())),
            Command::FreeAll => core.stop_all(),
            Command::CopyOllama => self.copy(core.ollama()),
            Command::CopyLmStudio => self.copy(core.lmstudio()),
            Command::Login => self.toggle_login(),
            Command::Problem => {
                let page = self
                    .state()
                    .view
                    .problem_model
                    .clone()
                    .map_or(Page::Home, |key| Page::Model(key.as_str().into()));
                self.open(page);
            }
            Command::Quit => self.inner.handle.exit(0),
        }
    }

    fn copy(&self, text: Option<String>) {
        if let Some(text) = text {
            self.on_main_thread(move || crate::clipboard::copy(&text));
        }
    }

    fn toggle_login(&self) {
        let tray = self.clone();
        self.inner.core.spawn(async move {
            let (handle, core) = (&tray.inner.handle, &tray.inner.core);
            let now = login::set(handle, core, !login::enabled(handle));
            let shown = tray.clone();
            tray.on_main_thread(move || shown.state().menu.set_login(now));
        });
    }
}

/// Waits for an event that the tray shows something of. False: there will be none any more.
async fn next_change(events: &mut broadcast::Receiver<Arc<Event>>) -> bool {
    loop {
        match events.recv().await {
            Ok(event) if matches!(event.kind, EventKind::Log { .. }) => {}
            // Missed some: the next look at the core makes up for all.
            Ok(_) | Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}
