use std::path::{Path, PathBuf};

/// A home folder that disappears with the value, and the environment that makes a program live in it.
#[derive(Debug)]
pub struct TempHome {
    folder: tempfile::TempDir,
}

const FOLDERS: [(&str, &str); 5] = [
    ("XDG_CONFIG_HOME", "config"),
    ("XDG_DATA_HOME", "data"),
    ("XDG_CACHE_HOME", "cache"),
    ("XDG_STATE_HOME", "state"),
    ("XDG_RUNTIME_DIR", "run"),
];

impl TempHome {
    /// Makes the folders, all private to the user as XDG asks for the runtime folder.
    ///
    /// # Errors
    /// When the temporary folder is not writable.
    pub fn new() -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("llamarunner-test-").tempdir()?;
        for (_, name) in FOLDERS {
            let path = folder.path().join(name);
            std::fs::create_dir(&path)?;
            #[cfg(unix)]
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        Ok(Self { folder })
    }

    /// The home folder itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `$XDG_CONFIG_HOME`.
    pub fn config(&self) -> PathBuf {
        self.path().join("config")
    }

    /// `$XDG_DATA_HOME`.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// `$XDG_CACHE_HOME`.
    pub fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// `$XDG_STATE_HOME`.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// A complete small environment for a child process (use with `env_clear`): `HOME`, the XDG folders, `PATH`.
    pub fn env(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut env = vec![("HOME".to_owned(), text(self.path()))];
        env.extend(
            FOLDERS
                .iter()
                .map(|(variable, name)| ((*variable).to_owned(), text(&self.path().join(name)))),
        );
        env.push((
            "PATH".to_owned(),
            std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()),
        ));
        env
    }
}
