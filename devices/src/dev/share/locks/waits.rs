//! The requests that wait for a lock, each on its thread.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::host;
use super::interrupt::{Interruptible, Thread, install_handler};
use crate::dev::share::threads::MAX_THREADS;

/// As many wait at once; further ones get ENOLCK. Others need threads, too.
pub(super) const MAX_WAITS: usize = MAX_THREADS / 2;
/// As many requests can be in the queue when the guest interrupts one of them.
const MAX_EARLY: usize = 512;

pub(super) struct Waits {
    state: Mutex<State>,
    /// What no lock can be had on.
    unlockable: File,
}

#[derive(Default)]
struct State {
    /// By the guest's number of their request.
    waiting: HashMap<u64, Waiting>,
    /// Interrupted before they came: the guest has a queue of its own for that.
    early: VecDeque<u64>,
    /// Nobody waits any more, as nobody will take the answer.
    over: bool,
}

#[derive(Default)]
struct Waiting {
    interrupted: bool,
    /// While it may be in the system call.
    thread: Option<Thread>,
}

impl Waits {
    /// `root` is a directory that this thread can reach.
    pub(super) fn new(root: &str) -> io::Result<Self> {
        install_handler()?;
        let mut unlockable = File::options();
        unlockable.read(true).custom_flags(libc::O_PATH);
        Ok(Self {
            state: Mutex::default(),
            unlockable: unlockable.open(root)?,
        })
    }

    /// Announces a request that will wait.
    pub(super) fn announce(&self, unique: u64) -> Result<(), Errno> {
        let mut state = self.state();
        if state.over || state.early.contains(&unique) {
            return Err(Errno::EINTR);
        }
        if state.waiting.len() >= MAX_WAITS {
            return Err(Errno::ENOLCK);
        }
        if state.waiting.contains_key(&unique) {
            return Err(Errno::EINVAL);
        }
        state.waiting.insert(unique, Waiting::default());
        Ok(())
    }

    /// Waits in `call` until that returns or is interrupted.
    pub(super) fn wait(
        &self,
        unique: u64,
        file: File,
        mut call: impl FnMut(&File) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let file = Interruptible::new(file, &self.unlockable).map_err(|e| host::errno(&e))?;
        if let Some(waiting) = self.state().waiting.get_mut(&unique) {
            waiting.thread = Some(Thread::current());
        }
        let result = loop {
            if self.is_interrupted(unique) {
                break Err(Errno::EINTR);
            }
            match call(file.file()) {
                Err(Errno::EINTR) => {}
                // The descriptor is another file's by now.
                Err(Errno::EBADF) if self.is_interrupted(unique) => {}
                result => break result,
            }
        };
        if let Some(waiting) = self.state().waiting.get_mut(&unique) {
            waiting.thread = None;
        }
        result
    }

    /// Forgets a request that has waited.
    pub(super) fn forget(&self, unique: u64) {
        self.state().waiting.remove(&unique);
    }

    /// Ends the wait of a request, or sees to it that it will not wait when it comes.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut state = self.state();
        match state.waiting.get_mut(&unique) {
            Some(waiting) => waiting.interrupt(),
            // Most have been answered meanwhile, and will never come: they leave as others follow.
            None => {
                if state.early.len() >= MAX_EARLY {
                    state.early.pop_front();
                }
                state.early.push_back(unique);
            }
        }
    }

    /// Ends all waits, for good until [`Self::restart`].
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.over = true;
        state.waiting.values_mut().for_each(Waiting::interrupt);
    }

    /// For another guest, when nobody waits.
    pub(super) fn restart(&self) {
        *self.state() = State::default();
    }

    fn is_interrupted(&self, unique: u64) -> bool {
        let state = self.state();
        state.waiting.get(&unique).is_none_or(|w| w.interrupted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn interrupt(&mut self) {
        self.interrupted = true;
        if let Some(thread) = self.thread {
            thread.interrupt();
        }
    }
}
