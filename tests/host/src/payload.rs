//! The payload disk: a directory of ours as a read-only disk of the host.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Of the (sparse) disk, in bytes. Every host has one of this size, because the saved state knows it.
const SIZE: u64 = 2 << 30;

/// Where it is mounted in the host, once it is restored.
pub(crate) const MOUNT_POINT: &str = "/opt/runq";

/// Makes the disk `disk` with the contents of `dir`; without one it stays empty.
///
/// # Errors
/// `dir` is no directory, or too large; or mke2fs is missing.
pub(crate) fn make(dir: Option<&Path>, disk: &Path) -> Result<()> {
    let file = File::create(disk).with_context(|| format!("create {}", disk.display()))?;
    file.set_len(SIZE)?;
    let Some(dir) = dir else { return Ok(()) };
    ensure!(dir.is_dir(), "payload {}: not a directory", dir.display());
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal"])
        .args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", "-d"])
        .args([dir, disk])
        .output()
        .context("start mke2fs (package e2fsprogs)")?;
    if !made.status.success() {
        bail!(
            "payload {}: mke2fs: {} (the disk has {} MiB)",
            dir.display(),
            String::from_utf8_lossy(&made.stderr).trim(),
            SIZE >> 20
        );
    }
    Ok(())
}
