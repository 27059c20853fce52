//! Where files go (contract "Command line and config", Places).

use std::path::{Path, PathBuf};

use crate::error::StartError;

/// The folders of one running LlamaRunner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// Things worth keeping: logs, downloads, engines, the library's index.
    pub data: PathBuf,
    /// Things that can be made again: engine builds.
    pub cache: PathBuf,
    /// The user's home.
    pub home: PathBuf,
}

const NAME: &str = "llama-runner";

impl Places {
    /// The places of this user, or the ones named.
    ///
    /// # Errors
    /// [`StartError::NoHome`] when the system knows no home folder.
    pub fn find(config: Option<&Path>, data: Option<&Path>) -> Result<Self, StartError> {
        let base = directories::BaseDirs::new().ok_or(StartError::NoHome)?;
        let named = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            config: config.map_or_else(|| base.config_dir().join(NAME).join("config.json"), named),
            data: data.map_or_else(|| base.data_dir().join(NAME), named),
            cache: base.cache_dir().join(NAME),
            home: base.home_dir().to_owned(),
        })
    }

    /// Our log files.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// State files of running children.
    pub(crate) fn children(&self) -> PathBuf {
        self.data.join("run")
    }

    /// The built-in model.
    pub(crate) fn demo_model(&self) -> PathBuf {
        self.data.join("models").join("builtin").join("tiny-chat.gguf")
    }

    /// Our own store in Ollama's layout: pulled and created models.
    pub(crate) fn ollama_store(&self) -> PathBuf {
        self.data.join("ollama")
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("llama-runner.db")
    }

    /// Files that clients send, while they are worked on.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.data.join("uploads")
    }

    /// The library's index.
    pub(crate) fn model_index(&self) -> PathBuf {
        self.data.join("model-index.json")
    }

    /// A path as users write it in the settings: `~/` is the home folder, other relative paths start at the folder of the
    /// configuration file.
    pub(crate) fn expand(&self, path: &Path) -> PathBuf {
        if let Ok(rest) = path.strip_prefix("~") {
            return self.home.join(rest);
        }
        match self.config.parent() {
            Some(folder) => folder.join(path),
            None => path.to_owned(),
        }
    }
}

/// Makes a folder (and those above it) that only this user can enter.
pub(crate) fn private_folder(path: &Path) -> Result<(), StartError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| StartError::Folder {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_paths_as_users_write_them() {
        let places = Places {
            config: "/etc/lr/config.json".into(),
            data: "/d".into(),
            cache: "/c".into(),
            home: "/home/u".into(),
        };
        for (written, meant) in [
            ("~/models", "/home/u/models"),
            ("~", "/home/u"),
            ("/abs", "/abs"),
            ("rel/x", "/etc/lr/rel/x"),
            ("~other/x", "/etc/lr/~other/x"),
        ] {
            assert_eq!(places.expand(Path::new(written)), Path::new(meant), "{written}");
        }
    }

    #[test]
    fn named_places_are_absolute() {
        let places = Places::find(Some(Path::new("c.json")), Some(Path::new("d"))).unwrap();
        assert!(places.config.is_absolute() && places.data.is_absolute());
    }
}
