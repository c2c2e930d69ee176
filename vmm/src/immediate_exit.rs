//! Getting a vCPU thread out of KVM_RUN, whether it is inside, about to enter, or has just left.
//!
//! A signal alone would be lost between the thread's last look at its stop flag and the entry into
//! KVM_RUN. So the signal's handler, which runs on the vCPU's own thread, sets `immediate_exit` in
//! the thread's kvm_run page: the next KVM_RUN then returns EINTR at once (KVM API, 5).
#![allow(unsafe_code)] // a signal handler, and the kvm_run page that it writes

use std::cell::Cell;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

use crate::hypervisor::{VcpuFd, kvm_run};

thread_local! {
    // Const-initialised and without a destructor, so that the handler may touch it at any time.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn on_signal(number: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler that was set with SA_SIGINFO.
    if unsafe { (*info).si_code } != libc::SI_TKILL {
        // Not one of ours: it is meant for the process, whose first thread takes signals as events.
        // SAFETY: neither call uses memory, and both may be made in a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), number) };
    }
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: the pointer was set by this thread's `Interruptible`, which clears it before the page
        // goes away; the byte is meant to be written asynchronously (KVM API, 5, immediate_exit).
        unsafe { flag.write_volatile(1) };
    }
}

/// Installs the handler for the whole process. To be called before any vCPU thread starts; calling
/// it again changes nothing.
///
/// # Errors
/// As sigaction(2).
pub fn install_handler() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), on_signal).map_err(Into::into)
}

/// Makes the calling thread, which runs `vcpu`, interruptible for as long as this lives.
pub struct Interruptible<'a> {
    vcpu: &'a mut VcpuFd,
}

impl<'a> Interruptible<'a> {
    /// On the vCPU's own thread, which takes the signal even if the process holds it back.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn new(vcpu: &'a mut VcpuFd) -> io::Result<Self> {
        unblock_signal(SIGRTMIN()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let run: *mut kvm_run = vcpu.get_kvm_run();
        // SAFETY: `run` points to the mapped kvm_run page, so its field lies within it.
        let flag = unsafe { &raw mut (*run).immediate_exit };
        IMMEDIATE_EXIT.set(flag);
        Ok(Self { vcpu })
    }

    /// The vCPU, to run it.
    pub fn vcpu(&mut self) -> &mut VcpuFd {
        self.vcpu
    }

    /// To be called after KVM_RUN returned EINTR, before the stop flag is looked at: a signal from
    /// then on makes the next KVM_RUN return again.
    pub fn rearm(&mut self) {
        self.vcpu.set_kvm_immediate_exit(0);
    }
}

impl Drop for Interruptible<'_> {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

/// Gets the vCPU of `thread` out of KVM_RUN. Set what it shall see before.
///
/// # Errors
/// When the signal cannot be sent.
pub fn interrupt<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    // SAFETY: the thread was not joined or detached, as we hold its handle: its id is valid even if
    // it has ended already.
    let error = unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
    // And if it waits for another vCPU to start it (`Board::may_run`).
    thread.thread().unpark();
    match error {
        0 | libc::ESRCH => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
