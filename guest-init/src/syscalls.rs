//! The few system calls for which nix and rustix have no safe function, or one that cannot express
//! all that the kernel says (real-time signals).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_char, c_int, pid_t, sock_filter};
use nix::errno::Errno;
use proto::WindowSize;

/// A child that has ended, as siginfo_t tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Its process number.
    pub(crate) pid: pid_t,
    /// CLD_EXITED, CLD_KILLED or CLD_DUMPED.
    pub(crate) code: c_int,
    /// Its exit status for CLD_EXITED, otherwise the signal's number.
    pub(crate) status: c_int,
}

/// Forks: in the child, none; in the parent, the child's process number.
///
/// # Errors
/// Also if this process has more than one thread: what the others hold, the allocator's lock for
/// one, would be held in the child for ever.
pub(crate) fn fork() -> io::Result<Option<pid_t>> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork needs a single thread"));
    }
    // SAFETY: there is no other thread, see above, so that the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Forks a test, whose other threads do nothing meanwhile, so that the child has a single one.
#[cfg(test)]
pub(crate) fn fork_a_test() -> Option<pid_t> {
    // SAFETY: the C library's allocator can be used in the child, and the other threads hold nothing.
    match unsafe { libc::fork() } {
        0 => None,
        pid => Some(pid),
    }
}

/// Waits until any child has ended, and leaves it to be reaped.
pub(crate) fn wait_for_child() -> io::Result<Ended> {
    // SAFETY: all-zero bytes are a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call, which writes nothing else.
    check(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) })?;
    // SAFETY: waitid fills in the fields of SIGCHLD's siginfo.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(Ended {
        pid,
        code: info.si_code,
        status,
    })
}

/// Reaps a child that has ended.
pub(crate) fn reap(pid: pid_t) -> io::Result<()> {
    // SAFETY: a null status is allowed, and nothing else is written.
    check(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }).map(drop)
}

/// Sends a signal by its number.
pub(crate) fn kill(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sets the size of a terminal's window; its processes get SIGWINCH.
pub(crate) fn set_window_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Adds options, MOUNT_ATTR_..., to the mount that a descriptor is of, and perhaps to those below.
pub(crate) fn add_mount_flags(mount: impl AsFd, flags: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: flags,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    let result = {
        // SAFETY: the path is a C string, and the attributes, of the size that is told, outlive the
        // call, which writes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_fd().as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | recursive,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        }
    };
    check(result).map(drop)
}

/// Installs a filter of system calls for this thread and what it executes.
pub(crate) fn set_seccomp_filter(program: &[sock_filter]) -> io::Result<()> {
    let too_long = |_| io::Error::from_raw_os_error(libc::E2BIG);
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(too_long)?,
        filter: program.as_ptr().cast_mut(),
    };
    let result = {
        // SAFETY: the kernel reads so many instructions, which outlive the call, and writes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        }
    };
    check(result).map(drop)
}

/// A call of execve(2) that is ready to be made, without a need for memory.
pub(crate) struct Execution<'a> {
    path: &'a CStr,
    args: Pointers<'a>,
    env: Pointers<'a>,
}

/// A list of strings, as the kernel takes it: it ends with a null pointer.
struct Pointers<'a> {
    pointers: Vec<*const c_char>,
    /// What they point to.
    _strings: &'a [CString],
}

impl<'a> Execution<'a> {
    pub(crate) fn new(path: &'a CStr, args: &'a [CString], env: &'a [CString]) -> Self {
        let pointers = |strings: &'a [CString]| Pointers {
            pointers: strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([std::ptr::null()])
                .collect(),
            _strings: strings,
        };
        Self {
            path,
            args: pointers(args),
            env: pointers(env),
        }
    }

    /// Executes the program in place of this one. Returns only why that did not work.
    pub(crate) fn perform(&self) -> Errno {
        let (args, env) = (&self.args.pointers, &self.env.pointers);
        // SAFETY: the path is a C string, and the lists are of C strings that outlive `self`, each
        // with a null pointer at its end. The call writes nothing.
        unsafe { libc::execve(self.path.as_ptr(), args.as_ptr(), env.as_ptr()) };
        Errno::last()
    }
}

/// Whether the kernel has a capability of this number.
pub(crate) fn knows_capability(number: u32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, number) >= 0 }
}

fn check<T: PartialOrd + From<i8>>(result: T) -> io::Result<T> {
    if result < T::from(0) {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::pty::posix_openpt;

    #[test]
    fn a_terminal_has_the_size_that_is_set() {
        let terminal = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        set_window_size(
            &terminal,
            WindowSize {
                rows: 50,
                cols: 132,
            },
        )
        .unwrap();
        // SAFETY: all-zero bytes are a winsize.
        let mut size: libc::winsize = unsafe { std::mem::zeroed() };
        // SAFETY: TIOCGWINSZ writes a winsize.
        let got = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        assert_eq!((got, size.ws_row, size.ws_col), (0, 50, 132));
    }

    #[test]
    fn a_process_with_several_threads_is_not_forked() {
        // The test runs in a thread of its own.
        assert!(fork().is_err());
    }

    #[test]
    fn a_terminal_is_what_takes_a_terminals_size() {
        let size = WindowSize { rows: 1, cols: 1 };
        let file = fs::File::open("/dev/null").unwrap();
        assert!(set_window_size(&file, size).is_err());
    }
}
