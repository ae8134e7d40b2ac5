//! [`Processes`]: a command with all that it has started.

use std::{io, process::ExitStatus, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

/// A command, in a process group of its own where there are such groups.
pub(super) struct Processes {
    child: Child,
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
}

impl Processes {
    pub(super) fn spawn(mut command: Command) -> io::Result<Processes> {
        command.kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn()?;
        Ok(Processes {
            #[cfg(unix)]
            group: child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)),
            child,
        })
    }

    /// Writes its standard input, and waits for its end; what it has started may go on.
    pub(super) async fn wait(&mut self, input: &[u8]) -> io::Result<ExitStatus> {
        if let Some(mut stdin) = self.child.stdin.take() {
            // A command that does not read it is no failure.
            let _ = stdin.write_all(input).await;
        }
        self.child.wait().await
    }

    /// Ends the command and what it has started: SIGTERM, and SIGKILL to what is left after `grace`.
    #[cfg(unix)]
    pub(super) async fn end(&mut self, grace: Duration) {
        use rustix::process::{Signal, kill_process_group};

        /// What SIGKILL has ended may still be listed, until its parent has noticed it.
        const LISTED: Duration = Duration::from_secs(1);
        let Some(group) = self.group else { return };
        for (signal, limit) in [(Signal::TERM, grace), (Signal::KILL, LISTED)] {
            if limit.is_zero() {
                continue;
            }
            // It may have no process any more.
            let _ = kill_process_group(group, signal);
            if tokio::time::timeout(limit, self.gone(group)).await.is_ok() {
                return;
            }
        }
    }

    /// Waits until the group has no process.
    #[cfg(unix)]
    async fn gone(&mut self, group: rustix::process::Pid) {
        use rustix::{io::Errno, process::test_kill_process_group};

        const CHECK: Duration = Duration::from_millis(10);
        loop {
            // Until it was waited for, a process that has ended is in the group.
            let _ = self.child.try_wait();
            if test_kill_process_group(group) == Err(Errno::SRCH) {
                return;
            }
            tokio::time::sleep(CHECK).await;
        }
    }

    /// Ends the command.
    #[cfg(not(unix))]
    pub(super) async fn end(&mut self, _grace: Duration) {
        // It may have ended.
        let _ = self.child.kill().await;
    }
}
