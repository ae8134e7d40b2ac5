//! Which process this is, and whether another one of this host is dead for certain.
//!
//! A process that died leaves its member znode behind until its session expires. Its successor on the same host
//! need not wait that long if it can *prove* that nobody acts for that znode any more. Only Linux gives such
//! proofs; elsewhere nothing is ever proven and the successor waits.
//!
//! Known limit: virtual machines cloned from one running snapshot share host name and boot id until they are
//! rebooted, so they are taken for one host.

use super::member::Process;

impl Process {
    /// This process; `None` where the system does not tell enough to prove a death later.
    pub(crate) fn current() -> Option<Process> {
        #[cfg(target_os = "linux")]
        return linux::current();
        #[cfg(not(target_os = "linux"))]
        None
    }
}

/// Whether `other` is dead for certain. `false` means only that there is no proof.
pub(crate) fn is_dead(other: &Process) -> bool {
    #[cfg(target_os = "linux")]
    return Process::current().is_some_and(|me| me.same_host(other))
        && linux::is_gone(other.pid, other.start);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = other;
        false
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use rustix::{
        io::Errno,
        process::{Pid, test_kill_process},
    };

    use super::super::member::Process;

    pub(super) fn current() -> Option<Process> {
        let text = |path| Some(fs::read_to_string(path).ok()?.trim().to_owned());
        let namespace = |path| Some(fs::read_link(path).ok()?.to_str()?.to_owned());
        let stat = Stat::parse(&fs::read("/proc/self/stat").ok()?)?;
        // A /proc of another pid namespace may be mounted here; its pids say nothing about ours.
        if stat.pid != std::process::id() {
            return None;
        }
        // Start times are shown relative to the reader's time namespace (since Linux 5.6), so the same process
        // has another one in another time namespace.
        let time = namespace("/proc/self/ns/time").unwrap_or_default();
        Some(Process {
            host: text("/proc/sys/kernel/hostname")?,
            boot_id: text("/proc/sys/kernel/random/boot_id")?,
            pid_namespace: namespace("/proc/self/ns/pid")? + &time,
            pid: stat.pid,
            start: stat.start,
        })
    }

    /// Whether the process `pid` that started at `start` is no more, as seen from its own pid namespace.
    pub(super) fn is_gone(pid: u32, start: u64) -> bool {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
        // Not by the absence of /proc/<pid>: the mount option `hidepid` hides the processes of other users.
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok();
        stat.and_then(|stat| Stat::parse(&stat)).is_some_and(|stat| stat.start != start || stat.is_corpse())
    }

    /// What `/proc/<pid>/stat` says.
    #[derive(Debug, PartialEq)]
    pub(super) struct Stat {
        pub(super) pid: u32,
        state: u8,
        threads: u64,
        pub(super) start: u64,
    }

    impl Stat {
        pub(super) fn parse(stat: &[u8]) -> Option<Stat> {
            let text = String::from_utf8_lossy(stat);
            // The second field is the command, which may itself contain spaces and parentheses.
            let (before, rest) = (text.split_once(" (")?.0, text.rsplit_once(") ")?.1);
            let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
            // proc_pid_stat(5) counts from 1, and `rest` starts with field 3.
            let field = |number: usize| fields.get(number - 3).copied();
            Some(Stat {
                pid: before.parse().ok()?,
                state: *field(3)?.as_bytes().first()?,
                threads: field(20)?.parse().ok()?,
                start: field(22)?.parse().ok()?,
            })
        }

        /// Whether it has ended and only waits for its parent to notice. The first thread of a process shows as
        /// a zombie too while others go on running.
        fn is_corpse(&self) -> bool {
            matches!(self.state, b'Z' | b'X') && self.threads <= 1
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_command_with_parentheses_and_spaces_does_not_shift_the_fields() {
            let after = "S 1 1 1 0 -1 4194304 102 0 0 0 0 0 0 0 20 0 3 0 127371 3133440 384";
            for command in ["cat", "a) R 9 (b", ") ", "x y", "\u{fffd}", ""] {
                let stat = format!("17 ({command}) {after}\n");
                let parsed = Stat::parse(stat.as_bytes());
                assert_eq!(parsed, Some(Stat { pid: 17, state: b'S', threads: 3, start: 127_371 }), "{stat}");
            }
            for bad in ["", "17", "17 (cat", "17 (cat) ", "17 (cat) S 1 1", "x (cat) S"] {
                assert_eq!(Stat::parse(bad.as_bytes()), None, "{bad:?}");
            }
            assert!(
                Stat::parse(b"17 (\xff\xfe) Z 1 1 1 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5").unwrap().is_corpse()
            );
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    fn me() -> Process {
        Process::current().expect("this system tells who we are")
    }

    #[test]
    fn a_process_knows_itself_and_is_alive() {
        let me = me();
        assert_eq!(me.pid, std::process::id());
        assert_eq!(Process::current(), Some(me.clone()));
        assert!(!is_dead(&me));
    }

    #[test]
    fn another_start_time_or_an_unknown_pid_proves_a_death_on_this_host_only() {
        let me = me();
        let earlier = Process { start: me.start + 1, ..me.clone() };
        assert!(is_dead(&earlier), "the pid was given to somebody else");
        assert!(is_dead(&Process { pid: i32::MAX as u32, ..me.clone() }), "no such pid");
        for elsewhere in [
            Process { host: "elsewhere".into(), ..earlier.clone() },
            Process { boot_id: "another".into(), ..earlier.clone() },
            Process { pid_namespace: "pid:[1]".into(), ..earlier.clone() },
            Process { pid: 0, ..me.clone() },
            Process { pid: u32::MAX, ..me },
        ] {
            assert!(!is_dead(&elsewhere), "{elsewhere:?}");
        }
    }

    #[test]
    fn a_killed_child_is_dead_before_and_after_its_parent_notices() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let stat = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        let start = linux::Stat::parse(&stat).unwrap().start;
        let process = Process { pid: child.id(), start, ..me() };
        assert!(!is_dead(&process), "it is running");
        child.kill().unwrap();
        // Nothing reports the arrival of the signal short of reaping the child: look again for up to ten seconds.
        let ended = (0..5000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            is_dead(&process)
        });
        child.wait().unwrap();
        assert!(ended, "a zombie was taken for alive");
        assert!(is_dead(&process));
    }
}
