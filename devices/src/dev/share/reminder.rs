//! Having the guest let go of the files that it knows, but does not use.
//!
//! A share cannot ask for that itself: Linux takes no notifications by virtio-fs. Whoever talks with the guest's init
//! can, and waits for the descriptor of this.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Asks the guest, once until it has answered. For all shares of a machine.
#[derive(Debug)]
pub struct Reminder {
    /// Readable while the guest is to be asked.
    event: EventFd,
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: bool,
    answers: u64,
}

impl Reminder {
    /// One that nobody has used yet.
    ///
    /// # Errors
    /// When there is no eventfd to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::new(EFD_NONBLOCK)?,
            state: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    /// Whether the guest is to be asked now: true once, until [`Self::answered`].
    pub fn take(&self) -> bool {
        self.event.read().is_ok()
    }

    /// The guest has let go of what it could, or will never be asked.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.asked = false;
        state.answers += 1;
        self.answered.notify_all();
    }

    /// Has the guest asked, unless it is being asked.
    pub fn remind(&self) {
        let mut state = self.lock();
        if !state.asked {
            state.asked = true;
            // It is at most 1.
            let _ = self.event.write(1);
        }
    }

    /// Waits until the guest is asked for nothing, but no longer than `patience`, and not when it is `over`.
    pub fn wait(&self, patience: Duration, over: impl Fn() -> bool) {
        let state = self.lock();
        let before = state.answers;
        let waits = |state: &mut State| state.asked && state.answers == before && !over();
        drop(self.answered.wait_timeout_while(state, patience, waits));
    }

    /// Has those look again who wait, because it is over for some.
    pub(super) fn wake(&self) {
        let _state = self.lock();
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Reminder {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
