//! Why a request failed.

use std::fmt;
use std::io;

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// A request that failed: what was attempted, with which object, and why.
#[derive(Debug)]
pub struct Error {
    attempt: String,
    reason: Reason,
}

impl Error {
    /// The kernel's error; none if its answer is what makes no sense.
    pub fn errno(&self) -> Option<Errno> {
        self.reason.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attempt, self.reason.text)
    }
}

impl std::error::Error for Error {}

/// Why, before it is known what it was good for.
#[derive(Debug)]
pub(crate) struct Reason {
    pub(crate) errno: Option<Errno>,
    text: String,
}

impl Reason {
    /// The kernel refuses; perhaps it says more than a number.
    pub(crate) fn refused(errno: Errno, explanation: Option<&str>) -> Self {
        let text = match explanation {
            Some(explanation) => format!("{} ({explanation})", errno.desc()),
            None => errno.desc().to_owned(),
        };
        Self {
            errno: Some(errno),
            text,
        }
    }

    /// It is `attempt` that failed for this.
    pub(crate) fn of(self, attempt: fmt::Arguments<'_>) -> Error {
        Error {
            attempt: attempt.to_string(),
            reason: self,
        }
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        Self::refused(Errno::from_raw(code), None)
    }
}

impl From<DecodeError> for Reason {
    fn from(error: DecodeError) -> Self {
        Self {
            errno: None,
            text: error.to_string(),
        }
    }
}
