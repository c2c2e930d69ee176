//! How it ended, in an exit code and perhaps a line.

use crate::command::Outcome;
use crate::exit::Exit;
use crate::program::Program;
use crate::vm::Ended;

/// An exit code, and what to tell on standard error.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The exit code.
    pub code: u8,
    /// One line, if there is anything to tell.
    pub message: Option<String>,
}

impl Verdict {
    /// A code with a line.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    fn silent(code: u8) -> Self {
        Self {
            code,
            message: None,
        }
    }

    /// What the end of the VM means: that of the command, whatever became of the machine; else that
    /// of the machine.
    pub fn of(ended: &Ended) -> Self {
        let Program {
            codes,
            command,
            hint,
            ..
        } = ended.program;
        let when = if ended.has_command {
            format!(" before the {command} ended")
        } else {
            String::new()
        };
        let machine = |code| Self::new(code, format!("{}{when}: {hint}", ended.exit));
        let progress = &ended.progress;
        match (&progress.outcome, progress.ended_by, ended.exit) {
            (Some(Outcome::Exited(code)), ..) => Self::silent(*code),
            (Some(Outcome::Failed { code, message }), ..) => Self::new(*code, message),
            // 128 + N stands for signal N.
            (None, Some(signal), _) => {
                Self::silent(u8::try_from(128 + signal).unwrap_or(codes.failure))
            }
            (.., Exit::Reset) => machine(codes.reset),
            (.., Exit::TripleFault) => machine(codes.triple_fault),
            (.., Exit::Panic) => machine(codes.panic),
            (Some(Outcome::Broken(message)), ..) => Self::new(codes.failure, message),
            _ if ended.has_command => machine(codes.failure),
            _ => Self::silent(0),
        }
    }
}

#[cfg(test)]
#[path = "verdict_test.rs"]
mod tests;
