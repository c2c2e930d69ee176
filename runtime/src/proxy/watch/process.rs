//! The process: what it is, and what it gives up.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use runtime::privileges;
use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin};
use rustix::thread::{CapabilitySet, set_name};
use vmm::network::net;
use vmm::seccomp::{ANY_THREAD, Allowed};

/// What it takes to make macvtaps and their devices' nodes (capabilities(7)).
const CAPABILITIES: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::MKNOD);

/// What it asks of the kernel beside [`ANY_THREAD`]'s.
const CALLS: [libc::c_long; 15] = [
    // rtnetlink, and the monitor.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_socket,
    // A macvtap's node, and what sysfs tells of it.
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mknodat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_unlinkat,
];

/// Runs `child` in a process of its own. To be called before there is another thread.
///
/// # Errors
/// fork(2)'s.
pub(super) fn fork(child: impl FnOnce()) -> io::Result<()> {
    if system::fork()? {
        child();
        std::process::exit(0);
    }
    Ok(())
}

/// Leaves this process nothing but `socket`, standard error, and what watching takes; gives back the
/// socket.
///
/// # Errors
/// Says what cannot be given up.
pub(super) fn confine(socket: OwnedFd) -> Result<BorrowedFd<'static>> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("end with the monitor")?;
    set_name(c"network").context("its name")?;
    // Its terminal's signals are not for this process.
    setsid().context("leave the session")?;
    // Whoever reads the container's output waits until nobody has it open.
    dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    dup2_stdin(socket)?;
    system::close_from(3).context("close the container's files")?;
    privileges::keep(CAPABILITIES).context("give up capabilities")?;
    restrict_calls().context("give up system calls")?;
    Ok(stdin())
}

/// Leaves the calling thread only the system calls that watching takes.
pub(super) fn restrict_calls() -> io::Result<()> {
    Allowed::calls(ANY_THREAD.into_iter().chain(CALLS))
        .with_requests(net::OPEN_REQUESTS)
        .restrict_thread()
}

#[allow(unsafe_code)] // Two system calls that have no safe form.
mod system {
    use std::io;

    /// Whether this is the child.
    pub(super) fn fork() -> io::Result<bool> {
        // SAFETY: the process has no other thread yet, which could hold a lock that the child needs.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid == 0),
        }
    }

    /// Closes all descriptors from `first` on.
    pub(super) fn close_from(first: libc::c_uint) -> io::Result<()> {
        // SAFETY: no memory is involved. Whoever owned a descriptor neither uses nor closes it: this
        // is the child, which ends without returning to its owners.
        match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
