use dialects::anthropic::Call;

/// Reads `data` as a request of `/v1/messages` and of its token count. Must hold: no panic; what may be answered may also
/// be counted.
pub(crate) fn run(data: &[u8]) {
    let call = Call::parse(data);
    let count = Call::parse_count(data);
    if call.is_ok() {
        assert!(count.is_ok(), "{:?}", count.err());
    }
    for error in [call.err(), count.err()].into_iter().flatten() {
        assert!(!error.message.is_empty(), "a refusal without a word");
    }
}
