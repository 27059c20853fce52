use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A process that cannot be confused with a later one of the same number: PID and start time (reliability guide 0:
/// never by name). Linux only: everything here reads `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start: u64,
}

struct Stat {
    id: ProcessId,
    parent: u32,
    group: u32,
    state: char,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| stat.id)
    }

    /// It exists, as a zombie or not.
    pub fn exists(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// It exists and is not a zombie.
    pub fn is_running(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.id == self && !matches!(stat.state, 'Z' | 'X'))
    }

    /// It ended but nobody waited for it.
    pub fn is_zombie(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.id == self && stat.state == 'Z')
    }

    /// Its process group.
    pub fn group(self) -> Option<u32> {
        stat(self.pid).filter(|stat| stat.id == self).map(|stat| stat.group)
    }

    /// Its parent's number.
    pub fn parent(self) -> Option<u32> {
        stat(self.pid).filter(|stat| stat.id == self).map(|stat| stat.parent)
    }

    /// Open descriptors.
    pub fn open_fds(self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.count())
    }

    /// Threads.
    pub fn threads(self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?.count())
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold parentheses and blanks.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    Some(Stat {
        id: ProcessId {
            pid,
            start: fields.get(19)?.parse().ok()?,
        },
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
    })
}

/// Looks at the process tree below one process. Descendants once seen by [`ProcessProbe::refresh`] stay known after
/// their parent is gone.
#[derive(Debug)]
pub struct ProcessProbe {
    root: ProcessId,
    known: BTreeSet<ProcessId>,
}

impl ProcessProbe {
    /// Below the running test itself.
    ///
    /// # Errors
    /// Without `/proc`.
    pub fn of_self() -> std::io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Below any process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let root = ProcessId::of(pid).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Self {
            root,
            known: BTreeSet::new(),
        })
    }

    /// The process at the top.
    pub fn root(&self) -> ProcessId {
        self.root
    }

    /// Remembers and returns the descendants there are now, zombies included.
    pub fn refresh(&mut self) -> Vec<ProcessId> {
        let all: Vec<Stat> = all_pids().filter_map(stat).collect();
        let mut children: BTreeMap<u32, Vec<ProcessId>> = BTreeMap::new();
        for stat in &all {
            children.entry(stat.parent).or_default().push(stat.id);
        }
        let mut found = Vec::new();
        let mut open: Vec<ProcessId> = self.known.iter().copied().filter(|id| id.exists()).collect();
        open.push(self.root);
        let mut seen: BTreeSet<ProcessId> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            if id != self.root {
                found.push(id);
            }
            for &child in children.get(&id.pid).into_iter().flatten() {
                if seen.insert(child) {
                    open.push(child);
                }
            }
        }
        self.known.extend(&found);
        found.sort_unstable();
        found
    }

    /// Of all descendants seen so far, those that still exist. A zombie counts while its parent is in this tree: one
    /// that was handed to init is init's to reap.
    pub fn survivors(&self) -> Vec<ProcessId> {
        let in_tree = |pid: u32| {
            self.known
                .iter()
                .chain([&self.root])
                .any(|id| id.pid == pid && id.exists())
        };
        let counts = |id: &ProcessId| id.is_running() || (id.is_zombie() && id.parent().is_some_and(in_tree));
        self.known.iter().copied().filter(counts).collect()
    }

    /// Waits until every descendant seen so far is gone; returns how long it took, or who is left after `limit`.
    ///
    /// # Errors
    /// The survivors.
    pub fn wait_gone(&self, limit: Duration) -> Result<Duration, Vec<ProcessId>> {
        let start = Instant::now();
        loop {
            let left = self.survivors();
            if left.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() >= limit {
                return Err(left);
            }
            // Processes that are not our children send no event when they end.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processes that hold a TCP socket listening on this port, IPv4 or IPv6. Sockets of other users have no visible
    /// holder.
    pub fn listeners_on(port: u16) -> Vec<ProcessId> {
        let sockets: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| std::fs::read_to_string(table).ok())
            .flat_map(|table| {
                table
                    .lines()
                    .skip(1)
                    .filter_map(|line| listening_inode(line, port))
                    .collect::<Vec<_>>()
            })
            .collect();
        if sockets.is_empty() {
            return Vec::new();
        }
        all_pids()
            .filter(|&pid| fd_targets(pid).iter().any(|target| holds(target, &sockets)))
            .filter_map(ProcessId::of)
            .collect()
    }

    /// Ports the process and the descendants seen so far listen on.
    pub fn ports(&self) -> BTreeSet<u16> {
        let mut inodes = BTreeMap::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
                if let Some((port, inode)) = listening(line) {
                    inodes.insert(inode, port);
                }
            }
        }
        self.known
            .iter()
            .chain([&self.root])
            .filter(|id| id.exists())
            .flat_map(|id| fd_targets(id.pid))
            .filter_map(|target| inodes.get(socket_inode(&target)?).copied())
            .collect()
    }
}

fn all_pids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn fd_targets(pid: u32) -> Vec<PathBuf> {
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    fds.flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .collect()
}

fn socket_inode(target: &std::path::Path) -> Option<&str> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')
}

fn holds(target: &std::path::Path, sockets: &BTreeSet<String>) -> bool {
    socket_inode(target).is_some_and(|inode| sockets.contains(inode))
}

/// Port and inode of a line of `/proc/net/tcp` in state LISTEN (0A).
fn listening(line: &str) -> Option<(u16, String)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    Some((port, (*fields.get(9)?).to_owned()))
}

fn listening_inode(line: &str, port: u16) -> Option<String> {
    listening(line).filter(|(p, _)| *p == port).map(|(_, inode)| inode)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn sees_children_grandchildren_zombies_and_their_end() {
        // `cat` ends when its stdin closes, so nothing outlives the test. A background job's stdin is /dev/null by default.
        let mut shell = Command::new("sh")
            .args(["-c", "exec 3<&0; cat <&3 & wait"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut probe = ProcessProbe::of_self().unwrap();
        let start = Instant::now();
        while probe.refresh().len() < 2 && start.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        let shell_id = ProcessId::of(shell.id()).unwrap();
        assert!(probe.survivors().contains(&shell_id));
        shell.kill().unwrap();
        while !shell_id.is_zombie() && start.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert!(shell_id.exists() && !shell_id.is_running());
        drop(shell.stdin.take());
        shell.wait().unwrap();
        probe
            .wait_gone(Duration::from_secs(5))
            .unwrap_or_else(|left| panic!("left: {left:?}"));
    }

    #[test]
    fn finds_who_holds_a_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = ProcessId::of(std::process::id()).unwrap();
        assert_eq!(ProcessProbe::listeners_on(port), [me]);
        assert!(ProcessProbe::of_self().unwrap().ports().contains(&port));
        drop(listener);
        assert!(ProcessProbe::listeners_on(port).is_empty());
        assert!(me.rss_bytes().unwrap() > 0 && me.open_fds().unwrap() > 2 && me.threads().unwrap() > 0);
    }
}
