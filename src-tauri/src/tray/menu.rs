//! The menu: built once, then only texts and switches change, so that it never moves or closes under the pointer
//! (UX guide 1.10). Model lines are added or removed when the number of models changes, never otherwise.

use tauri::menu::{CheckMenuItem, IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::{AppHandle, Wry};

use crate::core::Core;
use crate::tray::view::{ModelLine, View};

/// Where the first model line stands: after the status line, a separator and "Open".
const FIRST_SLOT: usize = 3;

/// What a menu entry does. Model commands name a slot of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Open the window.
    Open,
    /// Open the window on the list of models.
    Models,
    /// Load the model.
    Start(usize),
    /// Unload the model.
    Stop(usize),
    /// Open the window on a chat with the model.
    Chat(usize),
    /// Copy the model's name.
    CopyName(usize),
    /// Unload all models.
    FreeAll,
    /// Copy the address for Ollama's clients.
    CopyOllama,
    /// Copy the address for LM Studio's clients.
    CopyLmStudio,
    /// Switch start at login.
    Login,
    /// Open the window where the problem is.
    Problem,
    /// End everything.
    Quit,
}

const PLAIN: [(&str, Command); 8] = [
    ("open", Command::Open),
    ("models", Command::Models),
    ("free-all", Command::FreeAll),
    ("copy-ollama", Command::CopyOllama),
    ("copy-lmstudio", Command::CopyLmStudio),
    ("login", Command::Login),
    ("problem", Command::Problem),
    ("quit", Command::Quit),
];

/// Makes a model command for a slot.
type OnModel = fn(usize) -> Command;

const ON_MODEL: [(&str, OnModel); 4] = [
    ("start", Command::Start),
    ("stop", Command::Stop),
    ("chat", Command::Chat),
    ("copy-name", Command::CopyName),
];

impl Command {
    /// The command of a menu id: `quit`, `model/3/start`.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        if let Some((slot, action)) = id.strip_prefix("model/").and_then(|rest| rest.split_once('/')) {
            let (_, command) = ON_MODEL.iter().find(|(name, _)| *name == action)?;
            return Some(command(slot.parse().ok()?));
        }
        PLAIN.iter().find(|(name, _)| *name == id).map(|(_, command)| *command)
    }
}

struct Slot {
    line: Submenu<Wry>,
    start: MenuItem<Wry>,
    stop: MenuItem<Wry>,
    chat: MenuItem<Wry>,
}

/// The menu and the handles of what changes in it.
pub(crate) struct TrayMenu {
    root: Menu<Wry>,
    status: MenuItem<Wry>,
    slots: Vec<Slot>,
    free: MenuItem<Wry>,
    login: CheckMenuItem<Wry>,
    problem: MenuItem<Wry>,
    quit: MenuItem<Wry>,
    /// The lines as they are in the menu now.
    shown: Option<View>,
}

impl TrayMenu {
    /// The skeleton, without model lines.
    pub(crate) fn new(handle: &AppHandle, core: &Core, at_login: bool) -> tauri::Result<Self> {
        let item = |id: &str, text: &str, enabled: bool| MenuItem::with_id(handle, id, text, enabled, None::<&str>);
        let line = || PredefinedMenuItem::separator(handle);
        let address = |name: &str, address: Option<&String>| {
            let port = address
                .and_then(|address| address.rsplit_once(':'))
                .map_or_else(String::new, |(_, port)| format!(" ({port})"));
            format!("Copy {name} address{port}")
        };
        let (ollama, lmstudio) = (core.ollama(), core.lmstudio());
        let status = item("status", "LlamaRunner", false)?;
        let free = item("free-all", "Free all memory", false)?;
        let problem = item("problem", "Show last problem…", false)?;
        let quit = item("quit", "Quit", true)?;
        let login = CheckMenuItem::with_id(handle, "login", "Start at login", true, at_login, None::<&str>)?;
        let root = Menu::new(handle)?;
        let items: [&dyn IsMenuItem<Wry>; 13] = [
            &status,
            &line()?,
            &item("open", "Open LlamaRunner", true)?,
            &item("models", "All models…", true)?,
            &free,
            &line()?,
            &item("copy-ollama", &address("Ollama", ollama.as_ref()), ollama.is_some())?,
            &item(
                "copy-lmstudio",
                &address("LM Studio", lmstudio.as_ref()),
                lmstudio.is_some(),
            )?,
            &line()?,
            &login,
            &problem,
            &line()?,
            &quit,
        ];
        root.append_items(&items)?;
        Ok(Self {
            root,
            status,
            slots: Vec::new(),
            free,
            login,
            problem,
            quit,
            shown: None,
        })
    }

    /// The menu for the icon.
    pub(crate) fn root(&self) -> &Menu<Wry> {
        &self.root
    }

    /// Shows a view: sets what differs from the last one. On the main thread.
    pub(crate) fn show(&mut self, handle: &AppHandle, view: &View) {
        if let Err(error) = self.try_show(handle, view) {
            tracing::warn!(%error, "the tray menu could not be changed");
        }
        self.shown = Some(view.clone());
    }

    fn try_show(&mut self, handle: &AppHandle, view: &View) -> tauri::Result<()> {
        let before = self.shown.take();
        let before = before.as_ref();
        if before.is_none_or(|before| before.status != view.status) {
            self.status.set_text(plain(&view.status))?;
        }
        while self.slots.len() > view.models.len() {
            if let Some(slot) = self.slots.pop() {
                self.root.remove(&slot.line)?;
            }
        }
        while let Some(line) = view.models.get(self.slots.len()) {
            let at = self.slots.len();
            let slot = Slot::new(handle, at, line)?;
            self.root.insert(&slot.line, FIRST_SLOT + at)?;
            self.slots.push(slot);
        }
        for (at, (slot, line)) in self.slots.iter().zip(&view.models).enumerate() {
            if before.and_then(|before| before.models.get(at)) != Some(line) {
                slot.show(line)?;
            }
        }
        if before.is_none_or(|before| before.can_free != view.can_free) {
            self.free.set_enabled(view.can_free)?;
        }
        if before.is_none_or(|before| before.problem != view.problem) {
            self.problem.set_enabled(view.problem)?;
        }
        if before.is_none_or(|before| before.quit != view.quit) {
            self.quit.set_text(&view.quit)?;
        }
        Ok(())
    }

    /// Shows whether LlamaRunner starts at login. On the main thread.
    pub(crate) fn set_login(&self, on: bool) {
        if let Err(error) = self.login.set_checked(on) {
            tracing::warn!(%error, "the tray menu could not be changed");
        }
    }
}

impl Slot {
    fn new(handle: &AppHandle, at: usize, line: &ModelLine) -> tauri::Result<Self> {
        let item = |action: &str, text: &str, enabled: bool| {
            MenuItem::with_id(handle, format!("model/{at}/{action}"), text, enabled, None::<&str>)
        };
        let start = item("start", "Start", line.can_start)?;
        let stop = item("stop", "Stop", line.can_stop)?;
        let chat = item("chat", "Chat", line.can_chat)?;
        let copy = item("copy-name", "Copy name", true)?;
        let submenu = Submenu::with_items(handle, plain(&line.label), true, &[&start, &stop, &chat, &copy])?;
        Ok(Self {
            line: submenu,
            start,
            stop,
            chat,
        })
    }

    fn show(&self, line: &ModelLine) -> tauri::Result<()> {
        self.line.set_text(plain(&line.label))?;
        self.start.set_enabled(line.can_start)?;
        self.stop.set_enabled(line.can_stop)?;
        self.chat.set_enabled(line.can_chat)
    }
}

/// An ampersand marks a shortcut letter in menus; in a model's name it is just an ampersand.
fn plain(text: &str) -> String {
    text.replace('&', "&&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_to_commands() {
        for (id, command) in PLAIN {
            assert_eq!(Command::parse(id), Some(command), "{id}");
        }
        for (id, command) in [
            ("model/0/start", Some(Command::Start(0))),
            ("model/7/copy-name", Some(Command::CopyName(7))),
            ("model/7/fly", None),
            ("model/x/start", None),
            ("status", None),
            ("", None),
        ] {
            assert_eq!(Command::parse(id), command, "{id}");
        }
    }
}
