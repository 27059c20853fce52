use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A log file that never grows beyond a size: `x.log` is renamed to `x.log.1`, that one to `x.log.2` and so on; the
/// oldest is deleted (promise O3). Files are 0600 and folders it makes 0700 (promise S7).
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    max_files: usize,
    file: Option<File>,
    written: u64,
}

impl RotatingFile {
    /// Opens `path` for appending, making its folder. At most `max_files` files of `max_bytes` bytes are kept,
    /// the current one included.
    ///
    /// # Errors
    /// When the folder or the file cannot be made.
    pub fn open(path: impl Into<PathBuf>, max_bytes: u64, max_files: usize) -> io::Result<Self> {
        let path = path.into();
        if let Some(folder) = path.parent() {
            private_folder(folder)?;
        }
        let file = private_file(&path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path,
            max_bytes: max_bytes.max(1),
            max_files: max_files.max(1),
            file: Some(file),
            written,
        })
    }

    /// The current file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Closed first: Windows cannot rename an open file. Reopened by the next write even if a step here fails.
        self.file = None;
        if self.max_files == 1 {
            std::fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.max_files).rev() {
                let from = if number == 1 {
                    self.path.clone()
                } else {
                    self.numbered(number - 1)
                };
                match std::fs::rename(from, self.numbered(number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        self.written = 0;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + bytes.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => private_file(&self.path)?,
        };
        let result = file.write(bytes);
        self.file = Some(file);
        let n = result?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // The file may be from a time when somebody else made it.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// Deletes the oldest rotated files (`*.log.N`) of a folder until all its logs together fit `max_total_bytes`
/// (promise O3: total cap). Current files (`*.log`) stay; they are bounded by themselves. Returns how many went.
pub fn prune_logs(folder: &Path, max_total_bytes: u64) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let mut total = 0;
    let mut rotated: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(facts) = entry.metadata() else { continue };
        if !facts.is_file() || !name.contains(".log") {
            continue;
        }
        total += facts.len();
        if name
            .rsplit_once(".log.")
            .is_some_and(|(_, number)| number.parse::<u32>().is_ok())
        {
            rotated.push((
                facts.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                facts.len(),
                entry.path(),
            ));
        }
    }
    rotated.sort();
    let mut removed = 0;
    for (_, bytes, path) in rotated {
        if total <= max_total_bytes {
            break;
        }
        if std::fs::remove_file(path).is_ok() {
            total -= bytes;
            removed += 1;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(folder: &Path) -> Vec<(String, u64)> {
        let mut sizes: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    entry.metadata().unwrap().len(),
                )
            })
            .collect();
        sizes.sort();
        sizes
    }

    #[test]
    fn keeps_count_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/x.log");
        let mut file = RotatingFile::open(&path, 100, 3).unwrap();
        for _ in 0..50 {
            file.write_all(&[b'x'; 40]).unwrap();
        }
        let sizes = sizes(path.parent().unwrap());
        assert_eq!(
            sizes,
            [("x.log".into(), 80), ("x.log.1".into(), 80), ("x.log.2".into(), 80)]
        );
    }

    #[test]
    fn appends_after_reopen_and_single_file_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        RotatingFile::open(&path, 100, 1)
            .unwrap()
            .write_all(&[b'a'; 60])
            .unwrap();
        let mut again = RotatingFile::open(&path, 100, 1).unwrap();
        again.write_all(&[b'b'; 30]).unwrap();
        assert_eq!(sizes(folder.path()), [("x.log".into(), 90)]);
        again.write_all(&[b'c'; 30]).unwrap();
        assert_eq!(sizes(folder.path()), [("x.log".into(), 30)]);
    }

    #[cfg(unix)]
    #[test]
    fn private_also_when_it_was_not() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/x.log");
        RotatingFile::open(&path, 10, 2).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        RotatingFile::open(&path, 10, 2).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn recovers_when_the_folder_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone/x.log");
        let mut file = RotatingFile::open(&path, 10, 2).unwrap();
        file.write_all(b"0123456789").unwrap();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(file.write_all(b"lost").is_err());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        file.write_all(b"kept").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn prune_takes_rotated_files_only() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.log", "a.log.1", "a.log.2", "b.log", "notes.txt"] {
            std::fs::write(folder.path().join(name), [0; 100]).unwrap();
        }
        assert_eq!(prune_logs(folder.path(), 1000), 0);
        assert_eq!(prune_logs(folder.path(), 50), 2);
        let left: Vec<_> = sizes(folder.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["a.log", "b.log", "notes.txt"]);
    }
}
