//! The running command: signals to it, its end, and the ends of all others.

use std::io;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use libc::{c_int, pid_t};

use crate::console;
use crate::syscalls::{self, Ended};

/// The command's process, as long as its number is its own.
pub(crate) struct Command {
    pid: Mutex<Option<pid_t>>,
}

impl Command {
    /// The child with this number.
    pub(crate) fn new(pid: pid_t) -> Self {
        Self {
            pid: Mutex::new(Some(pid)),
        }
    }

    /// Sends it a signal, unless it has ended. Any thread.
    pub(crate) fn signal(&self, number: c_int) -> io::Result<()> {
        match *self.pid.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(pid) => syscalls::kill(pid, number),
            None => Ok(()),
        }
    }

    /// Reaps every child until the command has ended; its exit code. Once, on one thread.
    pub(crate) fn wait(&self) -> Result<u8> {
        loop {
            let ended = match syscalls::wait_for_child() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                ended => ended.context("wait for the command")?,
            };
            console::debug(format_args!("{ended:?}"));
            let mut pid = self.pid.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock: once it is reaped, its number may be another process's.
            syscalls::reap(ended.pid).context("reap a process")?;
            if *pid == Some(ended.pid) {
                *pid = None;
                return Ok(exit_code(ended));
            }
        }
    }
}

/// The exit code as shells and Docker give it: 128 + N for signal N.
fn exit_code(ended: Ended) -> u8 {
    let code = match ended.code {
        libc::CLD_EXITED => ended.status,
        _ => 128 + ended.status,
    };
    // An exit status has 8 bits, and signals end at 64.
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Held by a test that has children, because waiting for any child takes those of other tests, too.
#[cfg(test)]
pub(crate) static CHILDREN: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[expect(clippy::zombie_processes, reason = "Command waits for it")]
    fn code_of(script: &str) -> u8 {
        let child = process::Command::new("sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let pid = pid_t::try_from(child.id()).unwrap();
        Command::new(pid).wait().unwrap()
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "Command waits for it")]
    fn exit_codes_are_the_shells() {
        let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(code_of("exit 0"), 0);
        assert_eq!(code_of("exit 255"), 255);
        assert_eq!(code_of("kill -TERM $$"), 128 + 15);
        assert_eq!(code_of("kill -KILL $$"), 128 + 9);
        assert_eq!(code_of("kill -64 $$"), 128 + 64);

        let sleeper = process::Command::new("sleep").arg("1000").spawn().unwrap();
        let command = Command::new(pid_t::try_from(sleeper.id()).unwrap());
        command.signal(35).unwrap();
        assert_eq!(command.wait().unwrap(), 128 + 35);
        command.signal(9).unwrap();
        assert!(command.wait().is_err(), "no child is left");
    }
}
