use std::path::Path;

use domain::KnownWhisper;

use super::hub::{self, Entry, Repo};
use super::url::present;
use super::{Origin, blocking};
use crate::{DownloadError, DownloadSettings, Finish, Plan, PlannedFile, paths};

/// Where the files of unfinished models are, below the folder of speech models: the library looks into no hidden folder.
pub(crate) const INCOMING: &str = ".incoming";
/// Files without which the engine cannot work (audio contract 7.7), and what it needs besides of some models.
const NEEDED: [&str; 3] = ["config.json", "model.bin", "tokenizer.json"];
const VOCABULARIES: [&str; 2] = ["vocabulary.json", "vocabulary.txt"];
const PREPROCESSOR: &str = "preprocessor_config.json";

/// A speech-to-text model of the hub: the files that make it up, as one folder `<owner>__<name>`, visible when all are there.
pub(super) async fn resolve(origin: &Origin, text: &str) -> Result<Plan, DownloadError> {
    let repo = Repo::parse(origin, text)?;
    let entries = hub::list(origin, &repo).await?;
    plan(origin, &repo, &entries).await
}

/// Is this the repository of a converted Whisper, and nothing that llama.cpp runs?
pub(super) fn is_converted(entries: &[Entry]) -> bool {
    let has = |name: &str| entries.iter().any(|entry| entry.path == name);
    NEEDED.iter().all(|name| has(name))
        && VOCABULARIES.iter().any(|name| has(name))
        && hub::variants(entries).is_empty()
}

pub(super) async fn plan(origin: &Origin, repo: &Repo, entries: &[Entry]) -> Result<Plan, DownloadError> {
    let id = repo.id();
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|name| entries.iter().all(|entry| entry.path != *name))
        .collect();
    let vocabulary = entries.iter().any(|entry| VOCABULARIES.contains(&entry.path.as_str()));
    if !missing.is_empty() || !vocabulary {
        let mut missing = missing;
        if !vocabulary {
            missing.push("vocabulary.json");
        }
        return Err(DownloadError::Unsupported(format!(
            "{id} is not a speech model in CTranslate2's form: it has no {}",
            missing.join(", ")
        )));
    }
    let folder = paths::file_name(&format!("{}__{}", repo.owner, repo.name))?.to_owned();
    let target = paths::under(&origin.settings.speech_dir, &folder)?;
    let root = origin.settings.speech_dir.join(INCOMING);
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.path.as_str();
        // Nothing else: repositories hold other forms of the same weights too.
        if !NEEDED.contains(&name) && !VOCABULARIES.contains(&name) && name != PREPROCESSOR {
            continue;
        }
        files.push(PlannedFile {
            url: repo.file_address(origin, name)?,
            headers: hub::headers(origin),
            sha256: entry.sha256,
            git_sha1: entry.git_sha1.clone(),
            size: Some(entry.size),
            path: paths::under(&root, &format!("{folder}/{name}"))?,
            label: name.to_owned(),
        });
    }
    let there: Vec<PlannedFile> = files
        .iter()
        .map(|file| PlannedFile {
            path: target.join(&file.label),
            ..file.clone()
        })
        .collect();
    let already_present = present(&there).await?;
    if !already_present {
        hub::may_read(origin, repo, &files).await?;
        let (root, target) = (root.clone(), target.clone());
        blocking(move || recover(&root, &target)).await?;
    }
    let staged = root.join(&folder);
    Ok(Plan {
        name: KnownWhisper::named(&id).map_or(id, KnownWhisper::key),
        quantization: None,
        becomes: Some(target.clone()),
        finish: Finish::with(move || show(&staged, &target)),
        root,
        files,
        already_present,
    })
}

/// Deletes a speech model that was downloaded. `Ok(false)`: the folder is none of those, and nothing was touched. Blocking.
///
/// # Errors
/// The folder cannot be removed.
pub fn remove(settings: &DownloadSettings, folder: &Path) -> Result<bool, DownloadError> {
    let failed = |error: std::io::Error| DownloadError::io("the model cannot be deleted", &error);
    // What lies deeper, or is only a link, was put there by somebody else.
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let above = folder.parent().and_then(real);
    let is_ours = above.is_some()
        && above == real(&settings.speech_dir)
        && folder.symlink_metadata().is_ok_and(|data| data.is_dir())
        && folder
            .file_name()
            .is_some_and(|name| paths::file_name(&name.to_string_lossy()).is_ok());
    let (true, Some(name)) = (is_ours, folder.file_name()) else {
        return Ok(false);
    };
    // Out of sight at once, whatever happens while its files are removed.
    let root = settings.speech_dir.join(INCOMING);
    let hidden = root.join(name).with_added_extension("deleted");
    std::fs::create_dir_all(&root).map_err(failed)?;
    let _ = std::fs::remove_dir_all(&hidden);
    std::fs::rename(folder, &hidden).map_err(failed)?;
    std::fs::remove_dir_all(&hidden).map_err(failed)?;
    let _ = std::fs::remove_dir(&root);
    Ok(true)
}

/// Where a folder that makes room for its successor lies for a moment.
fn aside(staged: &Path) -> std::path::PathBuf {
    staged.with_added_extension("old")
}

/// Puts back a folder whose successor was not put in its place: the program ended between two steps.
fn recover(root: &Path, target: &Path) {
    let Some(name) = target.file_name() else { return };
    let old = aside(&root.join(name));
    if old.is_dir() && !target.exists() {
        // At worst it is downloaded again.
        let _ = std::fs::rename(&old, target);
    }
}

/// Makes the complete folder visible, in place of what was there under its name.
fn show(staged: &Path, target: &Path) -> Result<(), DownloadError> {
    let failed = |error: std::io::Error| DownloadError::io("the model cannot be put in its place", &error);
    let old = aside(staged);
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    };
    gone(std::fs::remove_dir_all(&old))?;
    gone(std::fs::rename(target, &old))?;
    if let Err(error) = std::fs::rename(staged, target) {
        let _ = std::fs::rename(&old, target);
        return Err(failed(error));
    }
    // What is left is hidden and goes with the next download.
    let _ = std::fs::remove_dir_all(&old);
    if let Some(root) = staged.parent() {
        let _ = std::fs::remove_dir(root);
    }
    Ok(())
}
