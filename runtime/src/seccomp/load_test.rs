//! The kernel's own view of a filter.
#![allow(unsafe_code)] // a child that lives under the filter, and its system calls

use super::tests::docker;
use super::*;

/// What a system call returns in the child: an error number, or 0.
fn errno_of(number: libc::c_long, first: libc::c_ulong) -> i32 {
    // SAFETY: those that are called here take no pointers, or fail before they look at them.
    match unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
        _ => 0,
    }
}

/// Installs the filter for this thread.
fn install(program: &[libc::sock_filter]) -> bool {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` and what it points to live as long as the call, which only reads them.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) == 0
    }
}

/// In the child: the number of the first expectation that is not met, 0 if all are.
fn child(program: &[libc::sock_filter]) -> i32 {
    if !install(program) {
        return 100;
    }
    let expectations = [
        (libc::SYS_getppid, 0, 0),
        (libc::SYS_keyctl, 0, libc::EPERM),
        (libc::SYS_clone3, 0, libc::ENOSYS),
        (libc::SYS_personality, 0xffff_ffff, 0),
        (libc::SYS_personality, 1, libc::EPERM),
        (1000, 0, libc::ENOSYS),
    ];
    let mut numbers = 1..;
    let failed = expectations
        .iter()
        .zip(&mut numbers)
        .find(|((number, first, errno), _)| errno_of(*number, *first) != *errno);
    failed.map_or(0, |(_, number)| number)
}

#[test]
fn linux_takes_docker_profile_and_denies_by_it() {
    let program = compile(&docker()).unwrap();
    let program: Vec<_> = program
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect();
    // SAFETY: the child only makes system calls, allocates nothing, and ends without returning.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = child(&program);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    assert!(pid > 0);
    let mut status = 0;
    // SAFETY: `status` is a valid place for the child's status.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    assert!(
        libc::WIFEXITED(status),
        "ended by signal {}",
        libc::WTERMSIG(status)
    );
    assert_eq!(libc::WEXITSTATUS(status), 0);
}
