//! What this process gives up before the guest runs.

use std::io;

use anyhow::{Context, Result};
use capng::Set;
use devices::seccomp::{ANY_THREAD, Allowed};
use nix::unistd::{chdir, chroot};

/// What this thread still asks of the kernel, beside KVM and what any thread does.
const CALLS: [libc::c_long; 19] = [
    // The event loop, and what its devices read and write.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_poll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // vCPU threads.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_seccomp, // they restrict themselves further
    libc::SYS_set_robust_list,
    // KVM's statistics.
    libc::SYS_pread64,
];

/// An empty folder of the vm volume, which nobody can write.
const EMPTY: &str = "/empty";

/// Leaves all files but those that are open, and all privileges. On the main thread, when the
/// machine is built and before it runs: the vCPU threads will be as confined as this one. The
/// threads of the share, which are there already, have confined themselves to it.
pub(crate) fn enter() -> Result<()> {
    chroot(EMPTY).context("change the root to /empty (it is part of the vm volume)")?;
    chdir("/").context("change the working directory")?;
    capng::clear(Set::BOTH);
    capng::apply(Set::BOTH)
        .map_err(|_| io::Error::last_os_error())
        .context("give up all capabilities")?;
    Allowed::calls(ANY_THREAD.into_iter().chain(CALLS))
        .with_kvm(&[libc::TIOCGWINSZ, libc::TCGETS, libc::TCSETS])
        .and_then(Allowed::restrict_thread)
        .context("system call filter")
}
