//! Identifies this process, and finds out whether another one of this host has certainly ended.
//!
//! The member znode of a process that died stays until its session expires. The next process on the same host need not
//! wait that long if it can *prove* that the old one has ended. Such a proof exists on Linux only. On other systems the
//! next process waits.
//!
//! Known limit: virtual machines that were cloned from one running snapshot have the same host name and boot id until
//! they are rebooted, so they are treated as one host.

use super::member::Process;

impl Process {
    /// This process; `None` if the system does not give enough to prove its end later.
    pub(crate) fn current() -> Option<Process> {
        #[cfg(target_os = "linux")]
        return linux::current();
        #[cfg(not(target_os = "linux"))]
        None
    }
}

/// Whether `other` has certainly ended. `false` means only that there is no proof.
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
        // A /proc of another pid namespace may be mounted here. Its pids are not comparable with ours.
        if stat.pid != std::process::id() {
            return None;
        }
        // Start times are relative to the time namespace of the reader (since Linux 5.6), so the same process has
        // another start time in another time namespace.
        let time = namespace("/proc/self/ns/time").unwrap_or_default();
        Some(Process {
            host: text("/proc/sys/kernel/hostname")?,
            boot_id: text("/proc/sys/kernel/random/boot_id")?,
            pid_namespace: namespace("/proc/self/ns/pid")? + &time,
            pid: stat.pid,
            start: stat.start,
        })
    }

    /// Whether the process `pid` that started at `start` has ended, as seen from its own pid namespace.
    pub(super) fn is_gone(pid: u32, start: u64) -> bool {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
        // A missing /proc/<pid> proves nothing: the mount option `hidepid` hides the processes of other users.
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok();
        stat.and_then(|stat| Stat::parse(&stat)).is_some_and(|stat| stat.start != start || stat.is_zombie())
    }

    /// The fields of `/proc/<pid>/stat` that are needed.
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

        /// Whether it has ended, although its parent has not noticed yet. A process whose first thread has ended while
        /// others run is shown as a zombie, too.
        fn is_zombie(&self) -> bool {
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
                Stat::parse(b"17 (\xff\xfe) Z 1 1 1 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5").unwrap().is_zombie()
            );
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    fn me() -> Process {
        Process::current().expect("this system identifies processes")
    }

    #[test]
    fn a_process_identifies_itself_and_is_alive() {
        let me = me();
        assert_eq!(me.pid, std::process::id());
        assert_eq!(Process::current(), Some(me.clone()));
        assert!(!is_dead(&me));
    }

    #[test]
    fn another_start_time_or_an_unknown_pid_proves_a_death_on_this_host_only() {
        let me = me();
        let earlier = Process { start: me.start + 1, ..me.clone() };
        assert!(is_dead(&earlier), "another process has the pid now");
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
        // Only reaping the child would report the arrival of the signal: check again for up to ten seconds.
        let ended = (0..5000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            is_dead(&process)
        });
        child.wait().unwrap();
        assert!(ended, "a zombie counts as alive");
        assert!(is_dead(&process));
    }
}
