//! The tray's pictures, drawn by `icons/generate.py` and decoded at compile time.

use tauri::image::Image;
use tauri::include_image;

use crate::arguments::Panel;
use crate::tray::view::Emblem;

/// Frames of the loading emblem.
const FRAMES: usize = 8;

/// One picture per emblem, 44 pixels: twice the usual 22, so panels of either density scale it cleanly.
struct Pictures {
    idle: Image<'static>,
    ready: Image<'static>,
    busy: Image<'static>,
    warning: Image<'static>,
    error: Image<'static>,
    loading: [Image<'static>; FRAMES],
}

static ON_DARK: Pictures = Pictures {
    idle: include_image!("../icons/tray/dark-panel/idle-44.png"),
    ready: include_image!("../icons/tray/dark-panel/ready-44.png"),
    busy: include_image!("../icons/tray/dark-panel/busy-44.png"),
    warning: include_image!("../icons/tray/dark-panel/warning-44.png"),
    error: include_image!("../icons/tray/dark-panel/error-44.png"),
    loading: [
        include_image!("../icons/tray/dark-panel/loading-44.png"),
        include_image!("../icons/tray/dark-panel/loading-1-44.png"),
        include_image!("../icons/tray/dark-panel/loading-2-44.png"),
        include_image!("../icons/tray/dark-panel/loading-3-44.png"),
        include_image!("../icons/tray/dark-panel/loading-4-44.png"),
        include_image!("../icons/tray/dark-panel/loading-5-44.png"),
        include_image!("../icons/tray/dark-panel/loading-6-44.png"),
        include_image!("../icons/tray/dark-panel/loading-7-44.png"),
    ],
};

static ON_LIGHT: Pictures = Pictures {
    idle: include_image!("../icons/tray/light-panel/idle-44.png"),
    ready: include_image!("../icons/tray/light-panel/ready-44.png"),
    busy: include_image!("../icons/tray/light-panel/busy-44.png"),
    warning: include_image!("../icons/tray/light-panel/warning-44.png"),
    error: include_image!("../icons/tray/light-panel/error-44.png"),
    loading: [
        include_image!("../icons/tray/light-panel/loading-44.png"),
        include_image!("../icons/tray/light-panel/loading-1-44.png"),
        include_image!("../icons/tray/light-panel/loading-2-44.png"),
        include_image!("../icons/tray/light-panel/loading-3-44.png"),
        include_image!("../icons/tray/light-panel/loading-4-44.png"),
        include_image!("../icons/tray/light-panel/loading-5-44.png"),
        include_image!("../icons/tray/light-panel/loading-6-44.png"),
        include_image!("../icons/tray/light-panel/loading-7-44.png"),
    ],
};

/// The pictures for the panel in use.
pub(crate) struct Icons {
    pictures: &'static Pictures,
    animated: bool,
}

impl Icons {
    /// Chooses by flag, else by the desktop. On the main thread.
    pub(crate) fn for_panel(panel: Panel) -> Self {
        let dark = match panel {
            Panel::Dark => true,
            Panel::Light => false,
            Panel::Auto => !light_panel(&std::env::var("XDG_CURRENT_DESKTOP").unwrap_or_default(), dark_theme()),
        };
        Self {
            pictures: if dark { &ON_DARK } else { &ON_LIGHT },
            animated: animations(),
        }
    }

    /// May pictures move?
    pub(crate) fn animated(&self) -> bool {
        self.animated
    }

    /// The picture of an emblem; `frame` counts up while it moves.
    pub(crate) fn image(&self, emblem: Emblem, frame: usize) -> Image<'static> {
        let pictures = self.pictures;
        match emblem {
            Emblem::Idle => &pictures.idle,
            Emblem::Ready => &pictures.ready,
            Emblem::Busy => &pictures.busy,
            Emblem::Warning => &pictures.warning,
            Emblem::Error => &pictures.error,
            Emblem::Loading => pictures.loading.get(frame % FRAMES).unwrap_or(&pictures.idle),
        }
        .clone()
    }
}

/// Panels that take the colours of the theme are light when the theme is; all others are dark by habit.
fn light_panel(desktop: &str, dark_theme: bool) -> bool {
    let follows_theme = desktop.split(':').any(|name| ["KDE", "MATE", "LXQt"].contains(&name));
    follows_theme && !dark_theme
}

#[cfg(target_os = "linux")]
fn dark_theme() -> bool {
    use gtk::prelude::ObjectExt;

    gtk::Settings::default().is_some_and(|settings| {
        let name: Option<String> = settings.property("gtk-theme-name");
        settings.property::<bool>("gtk-application-prefer-dark-theme")
            || name.is_some_and(|name| name.to_lowercase().contains("dark"))
    })
}

#[cfg(target_os = "linux")]
fn animations() -> bool {
    use gtk::prelude::ObjectExt;

    gtk::Settings::default().is_none_or(|settings| settings.property("gtk-enable-animations"))
}

#[cfg(not(target_os = "linux"))]
fn dark_theme() -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
fn animations() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_by_desktop() {
        for (desktop, dark_theme, light) in [
            ("GNOME", false, false),
            ("ubuntu:GNOME", false, false),
            ("KDE", false, true),
            ("KDE", true, false),
            ("MATE", false, true),
            ("XFCE", false, false),
            ("", false, false),
        ] {
            assert_eq!(light_panel(desktop, dark_theme), light, "{desktop} {dark_theme}");
        }
    }

    #[test]
    fn every_state_has_its_own_picture() {
        for pictures in [&ON_DARK, &ON_LIGHT] {
            let icons = Icons {
                pictures,
                animated: true,
            };
            let emblems = [
                Emblem::Idle,
                Emblem::Ready,
                Emblem::Busy,
                Emblem::Loading,
                Emblem::Warning,
                Emblem::Error,
            ];
            let mut seen: Vec<Vec<u8>> = emblems
                .iter()
                .map(|emblem| icons.image(*emblem, 0).rgba().to_vec())
                .collect();
            seen.push(icons.image(Emblem::Loading, 3).rgba().to_vec());
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), emblems.len() + 1);
        }
    }
}
