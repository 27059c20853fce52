//! The files by which LM Studio's command line finds a server (LM Studio contract 1.2). They lie in that product's own
//! folder, so they are written only when the settings say so.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

/// Writes where the LM Studio port answers. A failure is told in the log and has no other effect.
pub(crate) fn write(home: &Path, lmstudio: Option<SocketAddr>) {
    let Some(address) = lmstudio else { return };
    let folder = home.join(".lmstudio").join(".internal");
    let (port, interface) = (address.port(), address.ip().to_string());
    let files = [
        ("http-server.json", json!({ "port": port })),
        (
            "http-server-config.json",
            json!({"port": port, "networkInterface": interface}),
        ),
    ];
    let written = std::fs::create_dir_all(&folder).and_then(|()| {
        files
            .into_iter()
            .try_for_each(|(name, value)| config::write_whole(&folder.join(name), value.to_string().as_bytes()))
    });
    match written {
        Ok(()) => tracing::info!(port, "LM Studio's command line is told where the server is"),
        Err(error) => tracing::warn!(%error, "lmstudio.write_discovery_files: the files cannot be written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_the_port() {
        let home = tempfile::tempdir().expect("a folder");
        write(home.path(), None);
        assert!(!home.path().join(".lmstudio").exists());
        write(home.path(), Some(([127, 0, 0, 1], 1234).into()));
        let text = |name: &str| {
            let path = home.path().join(".lmstudio/.internal").join(name);
            std::fs::read_to_string(path).expect("the file")
        };
        assert_eq!(text("http-server.json"), r#"{"port":1234}"#);
        assert_eq!(
            text("http-server-config.json"),
            r#"{"port":1234,"networkInterface":"127.0.0.1"}"#
        );
        // Whoever is reading goes on reading what it began with.
        let (file, held) = (
            home.path().join(".lmstudio/.internal/http-server.json"),
            home.path().join("held"),
        );
        std::fs::hard_link(file, &held).expect("a second name");
        write(home.path(), Some(([127, 0, 0, 1], 4321).into()));
        assert_eq!(text("http-server.json"), r#"{"port":4321}"#);
        assert_eq!(std::fs::read_to_string(held).expect("the old file"), r#"{"port":1234}"#);
    }
}
