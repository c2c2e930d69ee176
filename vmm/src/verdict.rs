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
        let codes = &ended.program.codes;
        match (&ended.progress.outcome, ended.progress.ended_by) {
            (Some(Outcome::Exited(code)), _) => Self::silent(*code),
            (Some(Outcome::Failed { code, message }), _) => Self::new(*code, message),
            (Some(Outcome::Broken(message)), _) if !broke_down(ended.exit) => {
                Self::new(codes.failure, message)
            }
            // 128 + N stands for signal N.
            (None, Some(signal)) => {
                Self::silent(u8::try_from(128 + signal).unwrap_or(codes.failure))
            }
            _ => Self::of_machine(ended),
        }
    }

    /// The end of a machine whose command, if it had any, came to none.
    fn of_machine(ended: &Ended) -> Self {
        let Program {
            codes,
            command,
            hint,
            ..
        } = ended.program;
        let code = match ended.exit {
            Exit::Reset => codes.reset,
            Exit::TripleFault => codes.triple_fault,
            Exit::Panic => codes.panic,
            Exit::PowerOff | Exit::Stopped if ended.has_command => codes.failure,
            Exit::PowerOff | Exit::Stopped => return Self::silent(0),
        };
        let when = match ended.has_command {
            true => format!(" before the {command} ended"),
            false => String::new(),
        };
        Self::new(code, format!("{}{when}: {hint}", ended.exit))
    }
}

/// Whether the machine ended in a way that tells more than that its init is silent since.
fn broke_down(exit: Exit) -> bool {
    matches!(exit, Exit::Reset | Exit::TripleFault | Exit::Panic)
}

#[cfg(test)]
#[path = "verdict_test.rs"]
mod tests;
