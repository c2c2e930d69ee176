//! What a thread of a share can reach: the shared directory, with as few privileges as will do.
//!
//! A request names entries of directories that the guest knows (checked.rs sees to that). The shared
//! directory is the root directory of these threads alone, so that no other path leads out of it,
//! either.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use capng::{Action, Set, Type};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};
use tracing::debug;
use virtiofsd::oslib::dropsupgroups;

use crate::seccomp::{ANY_THREAD, Allowed, FSTATFS};

/// The capabilities (capabilities(7), without `CAP_`) that the threads of a share keep, if their
/// process has them: those that it takes to act as any of the guest's users. To confine them, the
/// process needs `SYS_CHROOT` as well.
pub const CAPABILITIES: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "MKNOD",
    "SETFCAP",
    "SETGID",
    "SETUID",
];

/// What the threads ask of the kernel beside [`ANY_THREAD`]'s.
const CALLS: [libc::c_long; 64] = [
    // Waiting for requests, and threads for slow ones.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_unshare,
    // Acting for a user: the library drops CAP_FSETID for a write that shall clear a set-user-id bit.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_umask,
    // Watching files for the guest.
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    // Files and directories.
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    FSTATFS,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_readlinkat,
    libc::SYS_removexattr,
    libc::SYS_renameat2,
    libc::SYS_setxattr,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// What a confined thread needs from outside.
pub(super) struct Outside {
    /// /proc/self/fd, by which the library opens what it holds anew.
    pub(super) descriptors: File,
    /// /proc/self/mountinfo, as it is now.
    pub(super) mounts: File,
    /// Where the directory is, for the names in `mounts`.
    pub(super) path: String,
}

/// Confines this thread to `directory`, for good, `without` some of [`CAPABILITIES`]. Its umask and working directory, which the
/// library changes, become its own as well.
pub(super) fn confine(directory: &Path, without: &[&str]) -> io::Result<Outside> {
    let path = utf8(directory.canonicalize()?)?;
    if !directory.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let outside = Outside {
        descriptors: File::open("/proc/self/fd")?,
        mounts: File::open("/proc/self/mountinfo")?,
        path,
    };
    own_directories()?;
    chroot(directory).map_err(|error| explain(error, "chroot(2), which needs CAP_SYS_CHROOT"))?;
    chdir("/")?;
    drop_privileges(without)?;
    Ok(outside)
}

/// Leaves this thread, and those that it starts, only the system calls that serving files needs.
pub(super) fn restrict_calls() -> io::Result<()> {
    Allowed::calls(ANY_THREAD.into_iter().chain(CALLS))
        .with_capability_queries()
        .restrict_thread()
}

/// Gives this thread root and working directories and a umask of its own, which start out as those
/// that it shared. For threads that a confined one starts, too.
pub(super) fn own_directories() -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS).map_err(|error| {
        explain(
            error,
            "unshare(CLONE_FS), which a seccomp profile may forbid",
        )
    })
}

/// Gives up what this thread does not need. Of what it needs it keeps what it has; a thread that
/// has nothing serves files as the user that it runs as.
fn drop_privileges(without: &[&str]) -> io::Result<()> {
    if has("SETGID")
        && let Err(error) = dropsupgroups()
    {
        // A user namespace may forbid it, and then the groups are those of an ordinary user.
        debug!("cannot drop supplementary groups: {error}");
    }
    let kept = CAPABILITIES
        .into_iter()
        .filter(|capability| !without.contains(capability) && has(capability))
        .collect();
    capng::clear(Set::CAPS);
    capng::updatev(Action::ADD, Type::PERMITTED | Type::EFFECTIVE, kept)
        .and_then(|()| capng::apply(Set::CAPS))
        .map_err(|_| io::Error::last_os_error())
}

/// Whether this thread has a capability.
fn has(capability: &str) -> bool {
    capng::name_to_capability(capability)
        .is_ok_and(|number| capng::have_capability(Type::EFFECTIVE, number))
}

fn utf8(path: PathBuf) -> io::Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the name has to be UTF-8"))
}

fn explain(error: nix::Error, attempt: &str) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{attempt}: {error}"))
}
