//! What is kept of each model file, and the reading of headers that gets it.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::{Capabilities, ModelFacts};
use gguf::{Detail, GgufError, Header, Purpose, SplitInfo};
use serde::{Deserialize, Serialize};

use crate::scan::Found;
use crate::speech::{self, SpeechRecord};

/// Most threads that read headers. More only fight for the disk.
const MAX_THREADS: usize = 8;

/// What a file is, from its header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Record {
    /// A model, or the first part of one.
    Model(ModelRecord),
    /// A further part of a split model.
    Part(PartRecord),
    /// A projector.
    Projector {
        vision: bool,
        audio: bool,
        width: Option<u64>,
        basename: Option<String>,
    },
    /// The folder of a speech-to-text model.
    Speech(SpeechRecord),
    /// A sound file or folder that is no model.
    Other { what: String },
    /// Not readable as what it claims to be.
    Bad { reason: String },
}

/// A model file's facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelRecord {
    pub(crate) facts: ModelFacts,
    pub(crate) capabilities: Capabilities,
    pub(crate) part: PartRecord,
}

/// What counts for the sums over a split model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) tensors: u64,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    /// Number (from 0), count, tensors of all parts.
    pub(crate) split: Option<(u32, u32, Option<u64>)>,
}

impl PartRecord {
    fn of(header: &Header) -> Self {
        Self {
            tensors: header.tensor_count,
            parameters: header.parameters,
            bytes: header.tensor_bytes,
            split: header
                .split()
                .map(|split| (split.number, split.count, split.tensors_of_all)),
        }
    }

    pub(crate) fn split_info(&self) -> Option<SplitInfo> {
        self.split.map(|(number, count, tensors_of_all)| SplitInfo {
            number,
            count,
            tensors_of_all,
        })
    }
}

impl Record {
    fn of(header: &Header) -> Self {
        match gguf::purpose(header) {
            Purpose::Model => Self::Model(ModelRecord {
                facts: gguf::facts(header),
                capabilities: gguf::capabilities(header, None),
                part: PartRecord::of(header),
            }),
            Purpose::Part => Self::Part(PartRecord::of(header)),
            Purpose::Projector => {
                let projector = gguf::projector(header).unwrap_or_default();
                Self::Projector {
                    vision: projector.vision,
                    audio: projector.audio,
                    width: projector.width,
                    basename: gguf::facts(header).basename,
                }
            }
            Purpose::Other(what) => Self::Other { what: what.to_owned() },
        }
    }
}

/// Opens a file and reads its header.
pub(crate) fn read_header(path: &Path, detail: Detail) -> Result<Header, GgufError> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    Header::read(&mut file, len, detail)
}

/// Reads one file, or the folder of a speech model. The flag says whether the result may be kept until the file changes: a
/// refused access may be granted later without any change of the file.
pub(crate) fn read(path: &Path) -> (Record, bool) {
    if path.is_dir() {
        return speech::read(path);
    }
    match read_header(path, Detail::Facts) {
        Ok(header) => (Record::of(&header), true),
        Err(error) => {
            let lasting = !matches!(error, GgufError::Io(_));
            (
                Record::Bad {
                    reason: error.to_string(),
                },
                lasting,
            )
        }
    }
}

/// Reads many files on a few threads. The results are in the order of `files`.
pub(crate) fn read_all(files: &[&Found]) -> Vec<(Record, bool)> {
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, MAX_THREADS)
        .min(files.len());
    if threads <= 1 {
        return files.iter().map(|file| read(&file.path)).collect();
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(files.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Vec::new();
                while let Some((at, file)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    files.get(at).map(|file| (at, file))
                } {
                    own.push((at, read(&file.path)));
                }
                results.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
