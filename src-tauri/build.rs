//! Reads `tauri.conf.json` and the (empty) capability list.

fn main() {
    tauri_build::build();
}
