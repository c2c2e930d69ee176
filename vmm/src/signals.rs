//! The signals that the monitor takes on behalf of its guest.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Forwarded to the guest's command, or ending us if there is none yet.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// The signals as a file descriptor, for the event loop.
pub struct Signals(SignalFd);

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The terminal's window has another size.
    WindowChanged,
    /// Meant for the guest's command.
    ForGuest {
        /// Its number.
        number: i32,
        /// Whether its default is to end a process.
        ends: bool,
    },
}

impl Signals {
    /// Blocks the signals in the calling thread and those that it starts from now on, and takes
    /// them as events. To be called before any thread is started.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn take() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in FORWARDED {
            set.add(signal);
        }
        set.add(Signal::SIGWINCH);
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// The next signal that came, if any.
    pub fn next(&self) -> Option<Received> {
        let number = self.0.read_signal().ok()??.ssi_signo as i32;
        Some(match number {
            libc::SIGWINCH => Received::WindowChanged,
            number => Received::ForGuest {
                number,
                ends: number != libc::SIGCONT,
            },
        })
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
