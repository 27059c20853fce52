use dialects::sse::SseSplitter;

type Events = Vec<(Vec<u8>, Vec<u8>)>;

fn events(pieces: &[&[u8]]) -> Events {
    let mut splitter = SseSplitter::new();
    let mut found = Events::new();
    for piece in pieces {
        splitter.push(piece, |event| found.push((event.event.to_vec(), event.data.to_vec())));
    }
    found
}

/// Splits `data` into events. Must hold: the same events however the bytes are cut, and none longer than what came.
pub(crate) fn run(data: &[u8]) {
    let whole = events(&[data]);
    let single: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(events(&single), whole, "byte by byte");
    let size = data.first().map_or(1, |byte| usize::from(*byte % 16) + 1);
    let pieces: Vec<&[u8]> = data.chunks(size).collect();
    assert_eq!(events(&pieces), whole, "in pieces of {size}");
    assert!(whole.iter().map(|(_, data)| data.len()).sum::<usize>() <= data.len());
}
