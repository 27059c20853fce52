#![no_main]

#[path = "../bodies/ollama_store.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
