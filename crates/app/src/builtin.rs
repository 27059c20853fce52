//! The demonstration model that comes inside the program.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::places::{Places, private_folder};

static MODEL: &[u8] = include_bytes!("../assets/tiny-chat.gguf");

/// Puts the model on disk unless it is there; the engine needs a file.
pub(crate) fn install(places: &Places) -> io::Result<()> {
    let path = places.demo_model();
    if is_current(&path).unwrap_or(false) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        private_folder(folder).map_err(io::Error::other)?;
    }
    // A half-written model must never have the name: the registry may look at any time.
    let temporary = path.with_extension("new");
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&temporary)?.write_all(MODEL)?;
    fs::rename(&temporary, &path)
}

/// Compares length, head and tail only: reading all of it would put the whole model into this process's memory at every
/// start. Another model of the same length differs in the last tensor.
fn is_current(path: &Path) -> io::Result<bool> {
    const PIECE: usize = 4096;
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() != MODEL.len() as u64 {
        return Ok(false);
    }
    let mut piece = [0; PIECE];
    file.read_exact(&mut piece)?;
    let head = piece == MODEL[..PIECE];
    file.seek(SeekFrom::End(-(PIECE as i64)))?;
    file.read_exact(&mut piece)?;
    Ok(head && piece == MODEL[MODEL.len() - PIECE..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_installed_once_and_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::find(None, Some(folder.path())).unwrap();
        install(&places).unwrap();
        let path = places.demo_model();
        assert_eq!(fs::read(&path).unwrap(), MODEL);
        let made = fs::metadata(&path).unwrap().modified().unwrap();
        install(&places).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().modified().unwrap(),
            made,
            "not written again"
        );
        fs::write(&path, &MODEL[..1000]).unwrap();
        install(&places).unwrap();
        assert_eq!(fs::read(&path).unwrap(), MODEL);
    }
}
