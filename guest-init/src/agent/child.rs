//! A child of the agent, from its fork until it is reaped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libc::{c_int, pid_t};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::syscalls;

/// How long a command has to end after its client has left.
const GRACE: Duration = Duration::from_secs(1);

/// The child. Its number is its own until it is reaped.
pub(super) struct Child {
    pid: pid_t,
    pidfd: OwnedFd,
}

/// A descriptor of a process, which becomes readable when it ends.
pub(super) fn descriptor(pid: pid_t) -> Result<OwnedFd> {
    let number = Pid::from_raw(pid).context("no process number")?;
    pidfd_open(number, PidfdFlags::empty()).with_context(|| format!("open the process {pid}"))
}

impl Child {
    /// The child with this number.
    ///
    /// # Errors
    /// When there are no descriptors left. The child is killed and reaped then.
    pub(super) fn new(pid: pid_t) -> Result<Self> {
        match descriptor(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd }),
            Err(error) => {
                let _ = syscalls::kill(pid, libc::SIGKILL);
                let _ = syscalls::reap(pid);
                Err(error)
            }
        }
    }

    /// Its exit code, as shells have it, once it has ended. It is not reaped by that.
    pub(super) fn ended(&self) -> Option<u8> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok()??;
        let code = match status.exit_status() {
            Some(status) => status,
            None => status.terminating_signal()? + 128,
        };
        // An exit status has 8 bits, and signals end at 64.
        Some(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, number: c_int) -> io::Result<()> {
        syscalls::kill(self.pid, number)
    }

    /// Reaps it; it has ended.
    pub(super) fn reap(self) -> io::Result<()> {
        syscalls::reap(self.pid)
    }

    /// Sends a signal to the processes that came of it and did not leave its group.
    fn signal_group(&self, number: c_int) {
        // It has no group of its own in the first moment.
        if syscalls::kill(-self.pid, number).is_err() {
            let _ = self.signal(number);
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A child whose client has left.
pub(super) struct Orphan {
    child: Child,
    /// When it is killed.
    deadline: Option<Instant>,
}

impl Orphan {
    /// Tells the child that its terminal, so to speak, is gone.
    pub(super) fn new(child: Child, now: Instant) -> Self {
        child.signal_group(libc::SIGHUP);
        Self {
            child,
            deadline: Some(now + GRACE),
        }
    }

    /// When to look at it again, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.child.ended().is_some()
    }

    /// Reaps it; it has ended.
    pub(super) fn reap(self) -> io::Result<()> {
        self.child.reap()
    }

    /// Ends it, if it is time.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.child.signal_group(libc::SIGKILL);
            self.deadline = None;
        }
    }
}
