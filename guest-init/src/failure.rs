//! Why the command could not be started, as the host is told.

use nix::errno::Errno;

/// An exit code in place of the command's, and one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// 126 or 127 if it is the command's fault, otherwise 1.
    pub(crate) code: u8,
    /// Names the object and the reason.
    pub(crate) message: String,
}

impl Failure {
    /// Says why `object`, which is the command or what it needs, cannot be used.
    pub(crate) fn of_command(object: &str, errno: Errno) -> Self {
        let code = match errno {
            Errno::ENOENT => 127,
            _ => 126,
        };
        Self {
            code,
            message: format!("{object}: {}", errno.desc().to_lowercase()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            code: 1,
            message: format!("{error:#}"),
        }
    }
}
