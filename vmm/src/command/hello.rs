//! How long init may take for its first word.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Readable once, when init's Hello is overdue. Dropping it disarms it.
pub(super) struct HelloTimer {
    timer: TimerFd,
    tell: Box<dyn FnOnce() + Send>,
}

impl HelloTimer {
    /// Starts to wait. `tell` says that the wait was in vain.
    ///
    /// # Errors
    /// As timerfd_create(2).
    pub(super) fn start(
        patience: Duration,
        tell: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let end = Expiration::OneShot(TimeSpec::from_duration(patience));
        timer.set(end, TimerSetTimeFlags::empty())?;
        Ok(Self {
            timer,
            tell: Box::new(tell),
        })
    }

    /// It was readable.
    pub(super) fn expire(self) {
        (self.tell)();
    }
}

impl AsRawFd for HelloTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}
