//! What the system tells about processes. Linux reads `/proc`; elsewhere nothing is known.

#![cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "leftovers are recognised on Linux only")
)]

use std::path::PathBuf;

/// Start time of a process in clock ticks since boot: with the PID it names one process for ever.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    fields.get(19)?.parse().ok()
}

/// Process group.
pub(crate) fn group(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(2)?.parse().ok()
}

/// It exists and has ended: nobody waited for it yet.
pub(crate) fn is_zombie(pid: u32) -> bool {
    stat_fields(pid)
        .and_then(|fields| fields.first().cloned())
        .is_some_and(|state| state == "Z" || state == "X")
}

/// The fields behind the name, which is in parentheses and may hold parentheses itself.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text[text.rfind(')')? + 1..]
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

/// The program a process runs. An engine replaced on disk since then keeps its old path.
pub(crate) fn executable(pid: u32) -> Option<PathBuf> {
    let target = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(
        target
            .to_str()
            .and_then(|text| text.strip_suffix(" (deleted)"))
            .map_or_else(|| target.clone(), PathBuf::from),
    )
}

/// Whether `name=value` is in the environment the process was started with. False for other users' processes.
pub(crate) fn has_env(pid: u32, name: &str, value: &str) -> bool {
    let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let wanted = format!("{name}={value}");
    environ.split(|&b| b == 0).any(|entry| entry == wanted.as_bytes())
}

/// Every process id there is.
pub(crate) fn all_pids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Resident memory in bytes, mapped model files included. `VmRSS` of `/proc/PID/status` is one small read, whereas
/// `smaps_rollup` walks the page tables of a model of many gigabytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Makes the kernel's out-of-memory killer prefer this process to the app. Best effort.
pub(crate) fn offer_to_oom_killer(pid: u32) {
    #[cfg(target_os = "linux")]
    // Raising is allowed to everybody; where it is not (some containers) nothing is lost.
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "300");
    #[cfg(not(target_os = "linux"))]
    let _ = pid;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn own_facts() {
        let me = std::process::id();
        assert!(start_time(me).unwrap() > 0);
        assert!(group(me).is_some() && !is_zombie(me));
        assert_eq!(executable(me).unwrap(), std::env::current_exe().unwrap());
        assert!(resident_bytes(me).unwrap() > 1024 * 1024);
        assert!(all_pids().any(|pid| pid == me));
        assert!(!has_env(me, "LLAMARUNNER_NO_SUCH", "x"));
        assert_eq!(start_time(u32::MAX), None);
    }
}
