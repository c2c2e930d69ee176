//! Giving a filter to the kernel.
#![allow(unsafe_code)] // two system calls without a safe wrapper

use std::io;
use std::ptr;

use libc::{c_ulong, sock_filter, sock_fprog};

/// Restricts the calling thread, and those that it starts from now on, for good. Sets `no_new_privs` as well, without which
/// only root may do so.
///
/// # Errors
/// When the kernel has no filters, or the program is too long for it.
pub(super) fn restrict_thread(program: &[sock_filter]) -> io::Result<()> {
    let (on, unused): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: this request takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) }.into())?;
    let filter = sock_fprog {
        len: program.len().try_into().map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` and what it points to live as long as the call, which only reads them.
    check(unsafe {
        let (mode, flags): (c_ulong, c_ulong) = (libc::SECCOMP_SET_MODE_FILTER.into(), 0);
        libc::syscall(libc::SYS_seccomp, mode, flags, ptr::from_ref(&filter))
    })
}

fn check(returned: libc::c_long) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
