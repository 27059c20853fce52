//! A name from outside never chooses a path (promise D4).

use std::path::{Component, Path, PathBuf};

use crate::DownloadError;

/// Longest accepted name of one file or folder, in bytes; file systems take 255, and `.partial.json` must fit.
const LONGEST: usize = 200;

/// Checks one name of a file or folder: letters, digits and `._-+=@ ()[],` only, no leading or trailing dot or blank, no
/// device name.
pub fn file_name(name: &str) -> Result<&str, DownloadError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+=@ ()[],".contains(c);
    let bad_edge = |c: Option<char>| c.is_none_or(|c| c == '.' || c == ' ');
    if name.len() > LONGEST
        || !name.chars().all(allowed)
        || bad_edge(name.chars().next())
        || bad_edge(name.chars().next_back())
        || ollama_store::is_device_name(name)
    {
        return Err(DownloadError::InvalidName(format!(
            "{name:?} cannot be used as a file name: use letters, digits and ._-+=@()[] only"
        )));
    }
    Ok(name)
}

/// Joins checked names (`owner/repo/file.gguf`, separated by `/`) to a root.
pub fn under(root: &Path, relative: &str) -> Result<PathBuf, DownloadError> {
    let mut path = root.to_owned();
    for part in relative.split('/') {
        path.push(file_name(part)?);
    }
    Ok(path)
}

/// Makes the folder of a file and checks that it lies under the root, links followed. Blocking.
pub(crate) fn prepare(root: &Path, file: &Path) -> Result<(), DownloadError> {
    let outside = || DownloadError::InvalidName("the name leads out of the folder for downloads".into());
    let failed = |error: &std::io::Error| DownloadError::io("the folder for downloads cannot be made", error);
    let relative = file.strip_prefix(root).map_err(|_| outside())?;
    let mut names = relative.components().peekable();
    std::fs::create_dir_all(root).map_err(|error| failed(&error))?;
    let real_root = root.canonicalize().map_err(|error| failed(&error))?;
    let mut at = real_root.clone();
    while let Some(name) = names.next() {
        let Component::Normal(name) = name else {
            return Err(outside());
        };
        if names.peek().is_none() {
            return Ok(());
        }
        at.push(name);
        match std::fs::create_dir(&at) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(&error)),
            _ => {}
        }
        // Each step on its own: a folder must not be made behind a link that leads away.
        at = at.canonicalize().map_err(|error| failed(&error))?;
        if !at.starts_with(&real_root) {
            return Err(outside());
        }
    }
    Err(outside())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that a hostile origin may send (promise D4), and every form of it that file systems fold together.
    const HOSTILE: &[&str] = &[
        "",
        ".",
        "..",
        "...",
        "....",
        " ",
        "a.",
        "a ",
        " a",
        ".hidden",
        "..\\x",
        "../x",
        "/x",
        "x/",
        "//x",
        "a//b",
        "a/../b",
        "./a",
        "C:",
        "C:x",
        "C:\\x",
        "\\\\host\\share",
        "\\\\?\\C:\\x",
        "a\\b",
        "a:b",
        "a:$DATA",
        "file.gguf::$DATA",
        "a\0b",
        "a\nb",
        "a\tb",
        "\u{202e}gguf.exe",
        "a\u{0}",
        "caf\u{e9}",
        "\u{ff0e}\u{ff0e}",
        "\u{2025}",
        "a\u{2215}b",
        "con",
        "CON",
        "con.gguf",
        "Con .txt",
        "nul",
        "aux.x",
        "prn",
        "com1",
        "COM9.gguf",
        "lpt1",
        "lpt0.x",
        "a*b",
        "a?b",
        "a|b",
        "a<b",
        "a>b",
        "a\"b",
        "~",
        "~/x",
        "$HOME",
        "a`b",
        "%2e%2e",
        "..%2f",
        "-rf\u{7f}",
    ];

    #[test]
    fn hostile_names_choose_no_path() {
        let root = Path::new("/root");
        for name in HOSTILE {
            assert!(
                matches!(under(root, name), Err(DownloadError::InvalidName(_))),
                "{name:?}"
            );
            assert!(file_name(name).is_err(), "{name:?}");
            // As a part of a longer name too.
            for relative in [
                format!("org/{name}"),
                format!("{name}/file.gguf"),
                format!("org/{name}/file.gguf"),
            ] {
                assert!(under(root, &relative).is_err(), "{relative:?}");
            }
        }
        assert!(file_name(&"x".repeat(201)).is_err());
    }

    #[test]
    fn ordinary_names_are_names() {
        for name in [
            "model.gguf",
            "Model-7B_Q4_K_M-00001-of-00003.gguf",
            "a",
            "conrad.gguf",
            "com10",
            "common",
            "x (1).gguf",
            "v1.2+build",
            "-v",
        ] {
            assert_eq!(file_name(name), Ok(name));
        }
        assert_eq!(
            under(Path::new("/r"), "org/repo/f.gguf").unwrap(),
            Path::new("/r/org/repo/f.gguf")
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_lead_out_and_nothing_is_made_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("inside")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("out")).unwrap();
        std::os::unix::fs::symlink(root.join("inside"), root.join("in")).unwrap();
        for wrong in [
            "out/f",
            "out/deep/er/f",
            "in/../out/f",
            "../outside/f",
            "inside/../../outside/f",
        ] {
            assert!(prepare(&root, &root.join(wrong)).is_err(), "{wrong}");
        }
        assert!(prepare(&root, Path::new("/etc/f")).is_err());
        assert!(prepare(&root, &root).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        for right in ["f", "inside/f", "in/f", "new/er/f"] {
            prepare(&root, &root.join(right)).unwrap();
        }
        assert!(root.join("new/er").is_dir());
        // The root itself may be a link: that is the user's choice.
        let linked = dir.path().join("linked");
        std::os::unix::fs::symlink(&root, &linked).unwrap();
        prepare(&linked, &linked.join("org/f")).unwrap();
        assert!(root.join("org").is_dir());
    }
}
