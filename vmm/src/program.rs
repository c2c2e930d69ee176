//! What differs between the programs that run guests: what they are called, how they end, and how
//! they tell of trouble.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use anyhow::Result;

use crate::command::terminal;
use crate::log;
use crate::stats::since_start;
use crate::verdict::Verdict;

/// A program that runs a guest.
#[derive(Debug)]
pub struct Program {
    /// What it is called in messages.
    pub name: &'static str,
    /// What the guest's command is called.
    pub command: &'static str,
    /// How to see why a guest does not do as it should.
    pub hint: &'static str,
    /// How it ends if the guest, or it itself, does not work.
    pub codes: Codes,
}

/// Exit codes where the command in the guest has none.
#[derive(Debug)]
pub struct Codes {
    /// The monitor could not do its work, or the guest ended before its command did.
    pub failure: u8,
    /// The guest asked for a reset.
    pub reset: u8,
    /// Triple fault.
    pub triple_fault: u8,
    /// The guest's kernel panicked.
    pub panic: u8,
}

/// The first process of a container. Its failures are told as `docker run` tells its own; a guest
/// that breaks down ends like a process that does: a panic like abort(3), a triple fault like a
/// segmentation fault, a reset like a container that is rebooted (SIGHUP: reboot(2), in a PID
/// namespace).
pub static CONTAINER: Program = Program {
    name: "runq",
    command: "process",
    hint: "RUNQ_LOG=debug in the container's environment shows the kernel's messages",
    codes: Codes {
        failure: 125,
        reset: 128 + libc::SIGHUP as u8,
        triple_fault: 128 + libc::SIGSEGV as u8,
        panic: 128 + libc::SIGABRT as u8,
    },
};

/// The monitor without Docker, which tells all ends of a guest apart.
pub static RUNQ_VMM: Program = Program {
    name: "runq-vmm",
    command: "command",
    hint: "--console serial shows the kernel's messages",
    codes: Codes {
        failure: 1,
        reset: 3,
        triple_fault: 4,
        panic: 5,
    },
};

impl Program {
    /// Does what `run` does, and tells what came of it: on at most one line on standard error, and
    /// as an exit code. To be called first of all in `main`.
    pub fn main(&'static self, run: impl FnOnce() -> Result<Verdict>) -> ExitCode {
        since_start();
        log::exit_on_panic(self);
        let verdict =
            run().unwrap_or_else(|error| Verdict::new(self.codes.failure, format!("{error:#}")));
        if let Some(message) = verdict.message {
            self.tell(message);
        }
        ExitCode::from(verdict.code)
    }

    /// One line on standard error, in one write(2): any thread may call this, under any filter.
    pub fn tell(&self, message: impl Display) {
        let line = log::one_line(&message.to_string());
        // A terminal in raw mode does not return to the first column by itself.
        let end = if terminal::is_raw() { "\r\n" } else { "\n" };
        let line = format!("{}: {line}{end}", self.name);
        // There is nobody else to tell that it failed.
        let _ = nix::unistd::write(io::stderr(), line.as_bytes());
    }
}
