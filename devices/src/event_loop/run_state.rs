//! How a device on an event loop is: what its handle and its worker share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::{fmt, io};

use tracing::warn;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::device::Traits;
use crate::log_limit::LogLimit;

/// How many configuration writes may wait for the device; a guest that is faster loses some, and
/// cannot make the monitor's memory grow.
const MAX_PENDING_WRITES: usize = 64;

/// How a device is. Only the handle starts the transitions to `Started` and `Stopping`, only the
/// worker those to `Broken` and `Stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// Not started, or stopped by a reset.
    Stopped,
    /// Started, or about to be.
    Started,
    /// Failed; waits for a reset.
    Broken,
    /// A reset is under way.
    Stopping,
}

/// A device's traits, and how it is.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) traits: Traits,
    state: AtomicU8,
    pending_writes: AtomicUsize,
    log_limit: LogLimit,
    /// Signalled when the device has stopped, if anybody waits for that.
    stopped: OnceLock<EventFd>,
}

impl Shared {
    pub(super) fn new(traits: Traits) -> Self {
        Self {
            traits,
            state: AtomicU8::new(RunState::Stopped as u8),
            pending_writes: AtomicUsize::new(0),
            log_limit: LogLimit::default(),
            stopped: OnceLock::new(),
        }
    }

    /// The device has stopped.
    pub(super) fn stopped(&self) {
        self.set_state(RunState::Stopped);
        if let Some(event) = self.stopped.get() {
            // A full counter is a signal, too.
            let _ = event.write(1);
        }
    }

    /// What [`Self::stopped`] signals from now on.
    pub(super) fn stop_event(&self) -> io::Result<EventFd> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        self.stopped.get_or_init(|| event).try_clone()
    }

    pub(super) fn state(&self) -> RunState {
        match self.state.load(Ordering::Acquire) {
            s if s == RunState::Stopped as u8 => RunState::Stopped,
            s if s == RunState::Started as u8 => RunState::Started,
            s if s == RunState::Broken as u8 => RunState::Broken,
            _ => RunState::Stopping,
        }
    }

    pub(super) fn set_state(&self, state: RunState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The device failed. The driver hears of it, unless a reset is on its way already.
    pub(super) fn broken(&self) {
        let from_started = self.state.compare_exchange(
            RunState::Started as u8,
            RunState::Broken as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if from_started.is_ok() {
            // A full counter means that an interrupt is pending already.
            let _ = self.traits.config.interrupt();
        }
    }

    /// Says in the log why the device stops. A guest that does it over and over is heard of only
    /// the first times.
    pub(super) fn complain(&self, reason: &dyn fmt::Display) {
        if self.log_limit.allows() {
            let device = self.traits.kind;
            warn!("virtio {device} stopped until the guest resets it: {reason}");
        }
    }

    /// Whether one more configuration write may wait.
    pub(super) fn begin_write(&self) -> bool {
        self.pending_writes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < MAX_PENDING_WRITES).then_some(n + 1)
            })
            .is_ok()
    }

    /// A configuration write has reached the device.
    pub(super) fn end_write(&self) {
        self.pending_writes.fetch_sub(1, Ordering::Relaxed);
    }
}
