//! Everything that differs between systems when a process is started, signalled and waited for; the only `unsafe` code.

#![cfg_attr(
    unix,
    expect(
        unsafe_code,
        reason = "prctl between fork and exec, kill, killpg and pidfd_open have no safe form in std"
    )
)]

use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::ChildSpec;

/// A started process that nobody has waited for yet. Dropping it kills the process itself (not its group).
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    inner: Inner,
    #[cfg(target_os = "linux")]
    exit: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

#[cfg(unix)]
type Inner = tokio::process::Child;
#[cfg(windows)]
type Inner = Box<dyn process_wrap::tokio::ChildWrapper>;

/// The three pipes.
pub(crate) type Pipes = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

fn command(spec: &ChildSpec, tag: &str) -> Command {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env(crate::INSTANCE_TAG_VARIABLE, tag)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The owner task is dropped only when the runtime goes: then the children go too.
        .kill_on_drop(true);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    command
}

/// Starts the process. Call it on the spawner thread only, inside the runtime (promise R1).
#[cfg(unix)]
pub(crate) fn spawn(spec: &ChildSpec, tag: &str) -> io::Result<(Process, Pipes)> {
    refuse_shell_fallback(&spec.program)?;
    let mut command = command(spec, tag);
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: the closure runs between fork and exec and calls only async-signal-safe functions (prctl, getppid, close_range);
        // it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The app may have died between fork and prctl: no signal would come then.
                if libc::getppid().cast_unsigned() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                // Everything but the three pipes ends at exec, also what the app itself inherited without meaning to.
                // Kernels before 5.11 refuse: then only descriptors opened by us are safe, as std opens them so.
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
                Ok(())
            });
        }
    }
    let mut child = command.spawn()?;
    let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process {
        pid,
        inner: child,
        #[cfg(target_os = "linux")]
        exit: pidfd(pid),
    };
    Ok((process, pipes))
}

/// `execvp` hands a file of unknown format to `/bin/sh`, so that a half-downloaded engine or an empty file would run as a
/// shell script (promise S9: never a shell). A script that names its interpreter is a program like any other.
#[cfg(unix)]
fn refuse_shell_fallback(program: &std::path::Path) -> io::Result<()> {
    if program.components().nth(1).is_none() {
        // A bare name is looked up by the system.
        return Ok(());
    }
    let mut magic = [0; 4];
    let mut file = std::fs::File::open(program)?;
    let n = io::Read::read(&mut file, &mut magic)?;
    // ELF, a script, and the six Mach-O forms.
    let known = [
        &b"\x7fELF"[..],
        b"#!",
        b"\xfe\xed\xfa",
        b"\xce\xfa\xed\xfe",
        b"\xcf\xfa\xed\xfe",
        b"\xca\xfe\xba\xbe",
    ];
    if known.iter().any(|form| magic[..n].starts_with(form)) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "this file is not a program"))
}

/// Starts the process in a job object that Windows ends together with the app. Unproven: not run on Windows yet.
#[cfg(windows)]
pub(crate) fn spawn(spec: &ChildSpec, tag: &str) -> io::Result<(Process, Pipes)> {
    let mut wrap = process_wrap::tokio::CommandWrap::from(command(spec, tag));
    wrap.wrap(process_wrap::tokio::JobObject)
        .wrap(process_wrap::tokio::KillOnDrop);
    let mut child = wrap.spawn()?;
    let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
    let pipes = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    Ok((Process { pid, inner: child }, pipes))
}

impl Process {
    /// Resolves when the process has ended and, on Linux with a pidfd, *before* it is reaped: its number is then still
    /// taken, so [`Process::kill_group`] cannot hit a stranger. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(exit) = &self.exit
            && exit.readable().await.is_ok()
        {
            return;
        }
        // Remembered by tokio, so that `reap` answers at once. An error here will show itself there.
        let _ = self.inner.wait().await;
    }

    /// Takes the exit status from the system; the number of the process is free afterwards.
    pub(crate) async fn reap(&mut self) -> io::Result<ExitStatus> {
        self.inner.wait().await
    }

    /// Asks the process alone to end. Only before [`Process::reap`]. A process that just ended is no error.
    #[cfg(unix)]
    pub(crate) fn terminate(&mut self) {
        // SAFETY: kill has no memory effects; the number belongs to our unreaped child.
        unsafe { libc::kill(self.pid.cast_signed(), libc::SIGTERM) };
    }

    /// Kills every process of the child's group, the child included.
    #[cfg(unix)]
    pub(crate) fn kill_group(&mut self) {
        kill_group(self.pid);
    }

    #[cfg(windows)]
    pub(crate) fn terminate(&mut self) {
        // Windows has no SIGTERM: the stdin message was the polite way, this ends the job. A gone job is no error.
        let _ = self.inner.start_kill();
    }

    #[cfg(windows)]
    pub(crate) fn kill_group(&mut self) {
        let _ = self.inner.start_kill();
    }
}

/// Kills a process group by its number. Numbers 0 and 1 would mean "our own group" and "everybody": refused.
#[cfg(unix)]
pub(crate) fn kill_group(group: u32) {
    if group > 1 && i32::try_from(group).is_ok() {
        // SAFETY: kill has no memory effects.
        unsafe { libc::kill(-group.cast_signed(), libc::SIGKILL) };
    }
}

/// Kills one process by a number that was just verified; for leftovers, which are not our children.
#[cfg(target_os = "linux")]
pub(crate) fn kill_process(pid: u32) {
    if pid > 1 && i32::try_from(pid).is_ok() {
        // SAFETY: kill has no memory effects.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
}

/// A descriptor that becomes readable when the process ends. `None` on kernels before 5.3.
#[cfg(target_os = "linux")]
fn pidfd(pid: u32) -> Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; close-on-exec is always set.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = libc::c_int::try_from(raw).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the descriptor is new and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an OwnedFd keeps returning the same open descriptor until it is dropped.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }.ok()
}
