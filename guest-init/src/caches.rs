//! What the kernel keeps of files that nobody uses.

use std::fs;

use anyhow::{Context, Result};

/// The kernel's documentation, admin-guide/sysctl/vm.rst.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// To be silent about the others.
const SILENTLY: &str = "4";
/// Names and inodes. A file of a share has no inode without a name or a user, so that its pages go with it
/// (`fuse_super_operations` of fs/fuse/inode.c).
const NAMES: &str = "2";

/// Has the kernel forget files that nobody uses: the host keeps each open that a share's guest knows.
pub(crate) fn forget_files() -> Result<()> {
    for command in [SILENTLY, NAMES] {
        fs::write(DROP_CACHES, command).context(DROP_CACHES)?;
    }
    Ok(())
}
