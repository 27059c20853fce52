//! Voices for the engines that are installed on request (audio contract 8): what the hub has, and under which terms.

use domain::VoicePack;
use http::Method;

use super::Origin;
use super::hub::{self, Entry, Repo};
use super::url::present;
use crate::{DownloadError, Finish, Plan, PlannedFile, paths};

/// What a voice's maker says about it, its licence among it.
const CARD: &str = "MODEL_CARD";
/// Longest card that is shown, in bytes.
const LONGEST_CARD: usize = 64 << 10;

/// A pack of voices before it is downloaded: how much it is, and under which terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoiceOffer {
    /// Bytes to fetch.
    pub bytes: u64,
    /// What the maker of the voice says about it; `None`: the pack's own licence says it all.
    pub card: Option<String>,
    /// Everything is there already.
    pub is_present: bool,
}

/// `kokoro`, `piper` or `piper/<voice>` → pack and voice.
fn parse(name: &str) -> Result<(VoicePack, Option<&str>), DownloadError> {
    let (pack, voice) = match name.split_once('/') {
        Some((pack, voice)) => (pack, Some(voice)),
        None => (name, None),
    };
    let known = VoicePack::named(pack).ok_or_else(|| {
        DownloadError::InvalidName(format!("{name:?} is no pack of voices: there are kokoro and piper"))
    })?;
    Ok((known, voice))
}

/// The files of a pack as the hub lists them, the folder they lie in, and the voice's name.
async fn listed(origin: &Origin, name: &str) -> Result<(VoicePack, Repo, Vec<Entry>, String), DownloadError> {
    let (pack, voice) = parse(name)?;
    let (folder, mut wanted) = pack.files(voice).ok_or_else(|| {
        DownloadError::InvalidName(match pack {
            VoicePack::Kokoro => "all voices of Kokoro come together: leave the voice out".to_owned(),
            VoicePack::Piper => format!(
                "{name:?} is no voice of Piper: they are called like en_US-ljspeech-medium, and {} lists them",
                pack.repository()
            ),
        })
    })?;
    let (owner, repository) = pack.repository().split_once('/').unwrap_or_default();
    let repo = Repo::of(owner, repository);
    let entries = hub::list_folder(origin, &repo, &folder).await?;
    if pack == VoicePack::Piper {
        wanted.push(CARD.to_owned());
    }
    let mut found = Vec::new();
    for file in wanted {
        let path = if folder.is_empty() {
            file
        } else {
            format!("{folder}/{file}")
        };
        match entries.iter().find(|entry| entry.path == path) {
            Some(entry) => found.push(entry.clone()),
            None => return Err(DownloadError::NotFound(format!("{} has no {path:?}", repo.id()))),
        }
    }
    let voice = voice.or(pack.usual_voice()).unwrap_or_default().to_owned();
    Ok((pack, repo, found, voice))
}

/// What would be downloaded, for somebody to agree to.
///
/// # Errors
/// As for [`super::resolve`].
pub async fn offer(origin: &Origin, name: &str) -> Result<VoiceOffer, DownloadError> {
    let (pack, repo, entries, voice) = listed(origin, name).await?;
    let files = planned(origin, pack, &repo, &entries, &voice)?;
    let card = match entries.iter().find(|entry| entry.name() == CARD) {
        Some(entry) => {
            let url = repo.file_address(origin, &entry.path)?;
            let answer = origin.ask(Method::GET, &url, &hub::headers(origin)).await?;
            let text = answer.bytes(LONGEST_CARD).await?;
            Some(String::from_utf8_lossy(&text).trim().to_owned())
        }
        None => None,
    };
    Ok(VoiceOffer {
        bytes: entries.iter().map(|entry| entry.size).sum(),
        card,
        is_present: present(&files).await?,
    })
}

/// Where the files go: the pack's folder, the card with the voice's name, since every voice has one.
fn planned(
    origin: &Origin,
    pack: VoicePack,
    repo: &Repo,
    entries: &[Entry],
    voice: &str,
) -> Result<Vec<PlannedFile>, DownloadError> {
    let root = &origin.settings.voices_dir;
    let file = |entry: &Entry| {
        let name = match entry.name() {
            CARD => format!("{voice}.{CARD}"),
            name => name.to_owned(),
        };
        Ok(PlannedFile {
            url: repo.file_address(origin, &entry.path)?,
            headers: hub::headers(origin),
            sha256: entry.sha256,
            git_sha1: entry.git_sha1.clone(),
            size: Some(entry.size),
            path: paths::under(root, &format!("{}/{name}", pack.key()))?,
            label: name,
        })
    };
    entries.iter().map(file).collect()
}

pub(super) async fn resolve(origin: &Origin, name: &str) -> Result<Plan, DownloadError> {
    let (pack, repo, entries, voice) = listed(origin, name).await?;
    let files = planned(origin, pack, &repo, &entries, &voice)?;
    let already_present = present(&files).await?;
    if !already_present {
        hub::may_read(origin, &repo, &files).await?;
    }
    Ok(Plan {
        name: pack.key().to_owned(),
        quantization: None,
        root: origin.settings.voices_dir.clone(),
        files,
        finish: Finish::nothing(),
        becomes: None,
        already_present,
    })
}
