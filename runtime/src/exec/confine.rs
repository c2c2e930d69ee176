//! What a relay gives up before it carries bytes: whoever breaks it, from the guest for one, has
//! the connection and the streams, and nothing else.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use capng::Set;
use nix::unistd::{chdir, chroot};
use rustix::thread::{CapabilitySet, capabilities};
use vmm::command::terminal::REQUESTS;
use vmm::seccomp::{ANY_THREAD, Allowed};

/// An empty folder of the vm volume, which nobody can write.
const EMPTY: &str = "vm/empty";

/// What the relay asks of the kernel beside [`ANY_THREAD`]'s: to wait, and to write to a socket.
const CALLS: [libc::c_long; 2] = [libc::SYS_ppoll, libc::SYS_sendto];

/// Leaves this process what a relay needs, for good. `root` is where runq is installed. To be called
/// when all files are open, by the only thread.
///
/// # Errors
/// Says what cannot be given up.
pub fn enter(root: &Path) -> Result<()> {
    let held = capabilities(None).context("capabilities")?;
    // Other users than root may not, and reach no file without openat(2) either.
    if held.effective.contains(CapabilitySet::SYS_CHROOT) {
        let empty = root.join(EMPTY);
        chroot(&empty).with_context(|| format!("{}: install runq anew", empty.display()))?;
        chdir("/").context("change the working directory")?;
    }
    // The bounding set only goes with CAP_SETPCAP. Without new privileges it means nothing.
    let set = if held.effective.contains(CapabilitySet::SETPCAP) {
        Set::BOTH
    } else {
        Set::CAPS
    };
    capng::clear(set);
    capng::apply(set)
        .map_err(|_| io::Error::last_os_error())
        .context("give up all capabilities")?;
    // With no_new_privs.
    Allowed::calls(ANY_THREAD.into_iter().chain(CALLS))
        .with_requests(&REQUESTS)
        .and_then(Allowed::restrict_thread)
        .context("give up system calls")
}
