//! Makes sure there is a page to embed: a clone without Node must build.

use std::path::Path;
use std::{fs, io};

/// Marks the page as ours, so that a real build is never overwritten and the stub is recognised.
const STUB: &str = "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"llamarunner-stub\" \
    content=\"1\"><title>LlamaRunner</title></head>\n<body><h1>LlamaRunner</h1>\n<p>The window was not built. Run \
    <code>cargo xtask run</code> with Node installed, or use the command line: <code>llama-runner list</code>.</p>\n\
    </body>\n</html>\n";

fn main() -> io::Result<()> {
    let dist = Path::new("../../frontend/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let index = dist.join("index.html");
    if !index.exists() {
        fs::create_dir_all(dist)?;
        fs::write(index, STUB)?;
    }
    Ok(())
}
