//! What tests need: a stub engine that misbehaves on command, a fake model origin, a process probe, a fault proxy, throw-away homes and
//! stream readers. A development dependency only; nothing here is part of the product.
//!
//! Ports are never chosen: everything binds port 0 and tells where it listens.

mod clock;
mod fake_origin;
mod fault_proxy;
mod frames;
mod paths;
mod probe;
mod record;
mod temp_home;
mod whisper_craft;

pub use clock::monotonic_ns;
pub use fake_origin::{
    FakeOrigin, HubFile, HubRepo, OriginFault, OriginHost, OriginLayer, OriginModel, OriginRequest, OriginSetup,
};
pub use fault_proxy::{Direction, Fault, FaultProxy};
pub use frames::{StubMark, ndjson_lines, sse_events, stub_marks};
pub use paths::{
    audio_dir, models_dir, real_engine_path, real_speech_python, stub_engine_path, stub_speech_path, tiny_whisper_dir,
};
pub use probe::{ProcessId, ProcessProbe};
pub use record::{Recorded, read_record};
pub use temp_home::TempHome;
pub use whisper_craft::WhisperCraft;
