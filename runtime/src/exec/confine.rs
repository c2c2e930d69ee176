//! What a relay gives up before it carries bytes: whoever breaks it, from the guest for one, has
//! the connection and the streams, and nothing else.

use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::{chdir, chroot};
use rustix::thread::{CapabilitySet, capabilities};
use vmm::command::terminal::REQUESTS;
use vmm::seccomp::{ANY_THREAD, Allowed};

use crate::privileges;

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
    privileges::keep(CapabilitySet::empty()).context("give up all capabilities")?;
    // With no_new_privs.
    Allowed::calls(ANY_THREAD.into_iter().chain(CALLS))
        .with_requests(&REQUESTS)
        // Once it has told its parent that it goes on.
        .with_parents_death()
        .restrict_thread()
        .context("give up system calls")
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, ExitStatus};

    use rustix::process::{geteuid, set_parent_process_death_signal};

    use super::*;

    /// Set for the copy of this test program that confines itself, to its folder.
    const CONFINED: &str = "RUNQ_TEST_CONFINED";
    /// What it says once it has left its parent.
    const LEFT: &str = "has left its parent";

    /// How such a copy ends when it has left its parent and opens a file, perhaps as a user without any privilege.
    fn opens_a_file(user: Option<u32>, root: &Path) -> ExitStatus {
        let test = "exec::confine::tests::no_file_can_be_opened_any_more";
        let mut copy = Command::new("/proc/self/exe");
        copy.args(["--exact", test]).env(CONFINED, root);
        if let Some(user) = user {
            copy.uid(user);
        }
        let output = copy.arg("--nocapture").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.contains(LEFT), output.status.signal().is_some());
        output.status
    }

    #[test]
    fn no_file_can_be_opened_any_more() {
        if let Some(root) = env::var_os(CONFINED) {
            enter(Path::new(&root)).unwrap();
            set_parent_process_death_signal(None).unwrap();
            println!("{LEFT}");
            let _ = File::open("/");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(EMPTY)).unwrap();
        assert_eq!(opens_a_file(None, root.path()).signal(), Some(libc::SIGSYS));
        if geteuid().is_root() {
            let other = opens_a_file(Some(65534), root.path());
            assert_eq!(other.signal(), Some(libc::SIGSYS));
            // Root does not do without the folder.
            let missing = opens_a_file(None, &root.path().join("no"));
            assert!(missing.signal().is_none() && !missing.success());
        }
    }
}
