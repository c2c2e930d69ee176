//! Getting a thread out of a system call that waits for a lock, whether it is inside, about to enter, or
//! has just left.
//!
//! A signal alone would be lost between the thread's last look at what it shall see and the entry into
//! the call. So the signal's handler, which runs on that thread, puts a file that cannot be locked in
//! the place of the one that the call is about: what has not begun to wait by then fails at once.
#![allow(unsafe_code)] // a signal handler, and the descriptor that it replaces

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

thread_local! {
    // Const-initialised and without a destructor, so that the handler may touch it at any time.
    /// The descriptor that is waited for, and the one that takes its place.
    static CALL: Cell<Option<(RawFd, RawFd)>> = const { Cell::new(None) };
}

/// The one after that of vCPU threads.
fn number() -> libc::c_int {
    SIGRTMIN() + 1
}

extern "C" fn on_signal(number: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel passes a valid siginfo to a handler that was set with SA_SIGINFO.
    if unsafe { (*info).si_code } != libc::SI_TKILL {
        // Not one of ours: it is meant for the process, whose first thread takes signals as events.
        // SAFETY: neither call uses memory, and both may be made in a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), number) };
    } else if let Some((place, unlockable)) = CALL.get() {
        // SAFETY: the call may be made in a handler. `place` is a descriptor of this thread's
        // `Interruptible`, which clears it before it closes the file.
        unsafe { libc::dup3(unlockable, place, libc::O_CLOEXEC) };
    }
    Errno::set_raw(errno);
}

/// Installs the handler for the whole process. To be called before any thread waits; calling it again
/// changes nothing.
pub(super) fn install_handler() -> io::Result<()> {
    register_signal_handler(number(), on_signal).map_err(Into::into)
}

/// A file that this thread waits for, and that it is told to stop waiting for by [`Thread::interrupt`].
pub(super) struct Interruptible {
    file: File,
}

impl Interruptible {
    /// `unlockable` has been opened with O_PATH, and stays open.
    pub(super) fn new(file: File, unlockable: &File) -> io::Result<Self> {
        CALL.set(Some((file.as_raw_fd(), unlockable.as_raw_fd())));
        let made = Self { file };
        unblock_signal(number()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(made)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        CALL.set(None);
    }
}

/// A thread that runs.
#[derive(Clone, Copy)]
pub(super) struct Thread(libc::pid_t);

impl Thread {
    pub(super) fn current() -> Self {
        // SAFETY: the call uses no memory.
        Self(unsafe { libc::gettid() })
    }

    /// Has the thread's call fail: with EINTR if it waits, EBADF if it has not begun to.
    pub(super) fn interrupt(self) {
        // SAFETY: the call uses no memory. If the thread were gone, another one of this process would get
        // the signal at worst, and do nothing.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, number()) };
    }
}
