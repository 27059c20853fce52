//! Lists the files of the speech program (`speech/*.py`), so that a new one needs no second mention in Rust.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), std::path::PathBuf::from);
    let out = env::var_os("OUT_DIR").map_or_else(|| ".".into(), std::path::PathBuf::from);
    let folder = root.join("speech");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    collect(&folder, "", &mut files)?;
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in files {
        let _ = writeln!(code, "    ({name:?}, include_str!({path:?})),");
    }
    code.push_str("]\n");
    fs::write(out.join("speech_program.rs"), code)
}

/// Python files of the folder and the packages in it, by their names below it.
fn collect(folder: &Path, below: &str, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with(['.', '_']) {
            collect(&path, &format!("{below}{name}/"), files)?;
        } else if path.extension().is_some_and(|end| end == "py") {
            files.push((format!("{below}{name}"), path.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}
