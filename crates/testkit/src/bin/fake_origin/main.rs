//! The fake origin as a process, for tests in other languages: `fake-origin [--setup FILE.json]`. Prints one line
//! `{"event":"ready","url":…,"cdn_url":…,"host":…}` and serves until its standard input ends. More can be set up, and the
//! requests be read, at `/__fake/setup`, `/__fake/requests` and `/__fake/clear` of its address.

use std::io::{self, Read, Write};

use testkit::{FakeOrigin, OriginSetup};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut setup = OriginSetup::default();
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--setup", Some(path)) => setup = serde_json::from_slice(&std::fs::read(path)?)?,
            _ => return Err(io::Error::other("usage: fake-origin [--setup FILE.json]")),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let origin = runtime.block_on(FakeOrigin::start())?;
    origin.set_up(setup)?;
    let ready = serde_json::json!({
        "event": "ready", "url": origin.url(), "cdn_url": origin.cdn_url(), "host": origin.host(),
    });
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
