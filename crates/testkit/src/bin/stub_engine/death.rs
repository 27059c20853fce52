//! Ending the process at once, as a crash does.

#![expect(unsafe_code, reason = "a process can only kill itself through libc")]

use std::str::FromStr;

/// How the process ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    Exit(u8),
    Signal(i32),
}

impl FromStr for Death {
    type Err = ();

    /// `exit:N` or `signal:N`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (how, number) = text.split_once(':').ok_or(())?;
        match how {
            "exit" => number.parse().map(Self::Exit).map_err(|_| ()),
            "signal" => number.parse().map(Self::Signal).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

/// Ends the process without any clean-up.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "this is the fault the stub plays"
)]
pub(crate) fn die(death: Death) -> ! {
    if let Death::Signal(signal) = death {
        // SAFETY: both calls have no memory effects. The default action first: std catches SIGSEGV and SIGBUS.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::kill(libc::getpid(), signal);
        }
        // A signal that does not kill: fall through to an exit that shows it.
    }
    let code = match death {
        Death::Exit(code) => i32::from(code),
        Death::Signal(signal) => 128 + signal,
    };
    std::process::exit(code)
}
