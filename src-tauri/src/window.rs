//! The window: made when asked for, destroyed when closed (a hidden one costs 320 MiB, desktop guide 7).

use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tauri::webview::{DownloadEvent, NewWindowResponse, PermissionKind, PermissionResponse};
use tauri::{AppHandle, Manager, Url, WebviewUrl, WebviewWindowBuilder};

use crate::core::Core;
use crate::{graphics, notice};

const LABEL: &str = "main";

/// Where in the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Page {
    /// Where it was, or Home.
    Any,
    /// Home.
    Home,
    /// All models.
    Models,
    /// One model, by key.
    Model(String),
    /// Chat with a model, by key.
    Chat(String),
}

impl Page {
    /// The route of the page in the UI's address.
    fn fragment(&self) -> Option<String> {
        let escaped = |key: &str| utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
        match self {
            Self::Any => None,
            Self::Home => Some("/home".into()),
            Self::Models => Some("/models".into()),
            Self::Model(key) => Some(format!("/models/{}", escaped(key))),
            Self::Chat(key) => Some(format!("/chat/{}", escaped(key))),
        }
    }
}

/// Shows the window, from any thread.
pub(crate) fn show(handle: &AppHandle, core: &Core, page: Page) {
    let (at, core) = (handle.clone(), core.clone());
    // Windows may only be made on the main thread.
    let asked = handle.run_on_main_thread(move || {
        if let Err(error) = show_now(&at, &core, &page) {
            tracing::error!(%error, "the window could not be opened");
        }
    });
    if let Err(error) = asked {
        tracing::error!(%error, "the window could not be asked for");
    }
}

fn show_now(handle: &AppHandle, core: &Core, page: &Page) -> tauri::Result<()> {
    let Some(mut url) = core.ui_url() else {
        tracing::error!("the window has no pages: no listener answers");
        return Ok(());
    };
    if let Some(fragment) = page.fragment() {
        url.set_fragment(Some(&fragment));
    }
    if let Some(window) = handle.get_webview_window(LABEL) {
        if page.fragment().is_some() {
            window.navigate(url)?;
        }
        window.unminimize()?;
        window.show()?;
        return window.set_focus();
    }
    let (inside, saved) = (core.clone(), core.clone());
    let (left, opened, paths) = (handle.clone(), handle.clone(), handle.clone());
    WebviewWindowBuilder::new(handle, LABEL, WebviewUrl::External(url))
        .title("LlamaRunner")
        .icon(tauri::include_image!("../icons/app/128.png"))?
        .inner_size(1180.0, 760.0)
        .min_inner_size(360.0, 420.0)
        // No page but our own is ever shown here (promise S12); other addresses belong to the browser.
        .on_navigation(move |url| {
            let ui = inside.ui_url();
            let ours = is_ours(url, ui.as_ref()) || is_made_here(url, ui.as_ref());
            if !ours {
                open_outside(&left, url.clone());
            }
            ours
        })
        .on_new_window(move |url, _| {
            open_outside(&opened, url);
            NewWindowResponse::Deny
        })
        // What a page made itself, a transcript for example, may be saved; nothing is fetched from elsewhere.
        .on_download(move |_, event| match event {
            DownloadEvent::Requested { url, destination } => {
                let ours = is_made_here(&url, saved.ui_url().as_ref());
                if ours {
                    *destination = place_for(&paths, destination);
                }
                ours
            }
            DownloadEvent::Finished { path, success, .. } => {
                match path {
                    Some(path) if success => notice::saved(&saved, &path),
                    path => tracing::warn!(?path, success, "a file was not saved"),
                }
                true
            }
            _ => false,
        })
        // The Speech page records. No other page is ever shown here, so nobody else can ask.
        .on_permission_request(|_, kind| match kind {
            PermissionKind::Microphone => PermissionResponse::Allow,
            _ => PermissionResponse::Deny,
        })
        // Files are dropped on the page, not on the window.
        .disable_drag_drop_handler()
        .build()?;
    Ok(())
}

/// Is it one of the window's own pages?
fn is_ours(url: &Url, ui: Option<&Url>) -> bool {
    ui.is_some_and(|ui| url.origin() == ui.origin() && url.path().starts_with("/ui/"))
}

/// Is it something that one of the window's own pages made in memory?
fn is_made_here(url: &Url, ui: Option<&Url>) -> bool {
    ui.is_some_and(|ui| url.scheme() == "blob" && url.origin() == ui.origin())
}

/// Where a file is saved: as the web view suggests, in the user's folder for downloads, else at home. The web view
/// itself falls back on the folder the program was started in.
fn place_for(handle: &AppHandle, suggested: &Path) -> PathBuf {
    let folder = match handle.path().download_dir() {
        Ok(_) => return suggested.to_owned(),
        Err(_) => handle.path().home_dir(),
    };
    let (Ok(folder), Some(name)) = (folder, suggested.file_name()) else {
        return suggested.to_owned();
    };
    free_name(&folder.join(name), Path::exists)
}

/// The path, or the first with a number that is not taken.
fn free_name(path: &Path, taken: impl Fn(&Path) -> bool) -> PathBuf {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (text(path.file_stem()), text(path.extension()));
    let (mut free, mut number) = (path.to_owned(), 0_u32);
    while taken(&free) {
        number += 1;
        free.set_file_name(format!("{stem} ({number}).{ending}"));
    }
    free
}

/// May it go to the browser? Secure web pages only: no files, no programs.
fn may_leave(url: &Url) -> bool {
    url.scheme() == "https"
}

fn open_outside(handle: &AppHandle, url: Url) {
    if !may_leave(&url) {
        tracing::warn!(scheme = url.scheme(), "a link in the window was not followed");
        return;
    }
    let asked = handle.run_on_main_thread(move || {
        if let Err(error) = graphics::open_in_browser(&url) {
            tracing::warn!(%error, "no browser took the link");
        }
    });
    if let Err(error) = asked {
        tracing::debug!(%error, "the event loop has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_our_own_pages_are_shown() {
        let ui = url("http://127.0.0.1:5800/ui/");
        let cases = [
            ("http://127.0.0.1:5800/ui/", true),
            ("http://127.0.0.1:5800/ui/#/models/a", true),
            ("http://127.0.0.1:5800/v1/state", false),
            ("http://127.0.0.1:5801/ui/", false),
            ("http://localhost:5800/ui/", false),
            ("https://127.0.0.1:5800/ui/", false),
            ("https://example.org/ui/", false),
            ("file:///etc/passwd", false),
            ("javascript:alert(1)", false),
            ("about:blank", false),
        ];
        for (address, ours) in cases {
            assert_eq!(is_ours(&url(address), Some(&ui)), ours, "{address}");
        }
        assert!(!is_ours(&ui, None));
    }

    #[test]
    fn only_what_our_pages_made_is_saved() {
        let ui = url("http://127.0.0.1:5800/ui/");
        for (address, ours) in [
            ("blob:http://127.0.0.1:5800/0b2a", true),
            ("blob:http://127.0.0.1:5801/0b2a", false),
            ("blob:https://127.0.0.1:5800/0b2a", false),
            ("blob:null/0b2a", false),
            ("http://127.0.0.1:5800/v1/state", false),
            ("data:text/plain,x", false),
        ] {
            assert_eq!(is_made_here(&url(address), Some(&ui)), ours, "{address}");
        }
        assert!(!is_made_here(&url("blob:http://127.0.0.1:5800/0b2a"), None));
    }

    #[test]
    fn files_are_not_overwritten() {
        let taken = |path: &Path| ["/h/a.srt", "/h/a (1).srt"].contains(&path.to_str().unwrap_or_default());
        assert_eq!(free_name(Path::new("/h/a.srt"), taken), Path::new("/h/a (2).srt"));
        assert_eq!(free_name(Path::new("/h/b.srt"), taken), Path::new("/h/b.srt"));
    }

    #[test]
    fn only_secure_pages_leave() {
        for (address, may) in [
            ("https://example.org/", true),
            ("http://example.org/", false),
            ("file:///x", false),
            ("ssh://h", false),
        ] {
            assert_eq!(may_leave(&url(address)), may, "{address}");
        }
    }

    #[test]
    fn pages_survive_any_key() {
        assert_eq!(
            Page::Model("a/b%c #".into()).fragment().unwrap(),
            "/models/a%2Fb%25c%20%23"
        );
        assert_eq!(Page::Any.fragment(), None);
    }
}
