use domain::{RunnerError, chat::Usage};

/// Engine stream in, client stream out: incremental, any chunking, no allocation per event beyond the output.
///
/// The handler calls `push` for every piece of the engine's body, then exactly one of `finish` (the body ended) or `fail`
/// (it broke). `finish` on a stream the engine did not complete writes the dialect's stream error itself: a cut stream
/// never ends as if complete (promise H3).
pub trait Transcoder: Send {
    /// Translates the next piece of the engine's body.
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>);
    /// The engine's body ended: writes what is still owed (final line, trailer or the error of a cut stream).
    fn finish(&mut self, out: &mut Vec<u8>);
    /// The stream broke or must stop: writes the dialect's stream error, once, unless the stream already ended.
    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>);
    /// The engine said it is done (or failed): nothing that it may still send matters; call `finish` now.
    fn ended(&self) -> bool;
    /// The error the engine reported inside the stream. While nothing was sent yet the handler can answer with a status
    /// instead of a stream.
    fn error(&self) -> Option<&RunnerError>;
    /// Counts and times, once the engine reported them.
    fn usage(&self) -> Option<&Usage>;
}
