//! How a virtual machine ends.

use std::fmt;

/// Why the guest runs no more. Trouble of the host's making is an error instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off (ACPI S5; on s390x, its last CPU has stopped).
    PowerOff,
    /// The guest asked for a reset (ACPI reset register, keyboard controller, port 0xcf9; DIAGNOSE 308).
    Reset,
    /// The guest's processor gave up: an exception while delivering a double fault.
    TripleFault,
    /// The guest's kernel reported a panic; on s390x, by a CPU that waits for nothing.
    Panic,
    /// We stopped it: a signal, or the guest's command has ended.
    Stopped,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "the guest powered off",
            Self::Reset => "the guest asked for a reset",
            Self::TripleFault => "the guest's processor hit a triple fault",
            Self::Panic => "the guest's kernel panicked",
            Self::Stopped => "stopped by the host",
        })
    }
}
