//! Paths that the command shall not see, or not change.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use crate::mounts::{NO_SUID_DEV_EXEC, bind, mount_at};
use crate::tree;

/// Covers a file with /dev/null, a directory with an empty one. A path that is not there is passed
/// over.
pub(crate) fn mask(path: &str) -> Result<()> {
    match is_directory(path)? {
        None => Ok(()),
        Some(true) => {
            let flags = NO_SUID_DEV_EXEC | MsFlags::MS_RDONLY;
            mount_at(path, "tmpfs", "tmpfs", flags, "")
        }
        Some(false) => bind("/dev/null", path),
    }
    .with_context(|| format!("mask {path}"))
}

/// Lets nothing be written at a path and below it; other mounts there are left as they are. A path
/// that is not there is passed over.
pub(crate) fn make_read_only(path: &str) -> Result<()> {
    if is_directory(path)?.is_none() {
        return Ok(());
    }
    bind(path, path)?;
    tree::make_read_only(path)
}

/// Whether a path is a directory; `None` if nothing is there.
fn is_directory(path: &str) -> Result<Option<bool>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.is_dir())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_passed_over() {
        for path in ["/proc/no/such/path", "/etc/passwd/below"] {
            mask(path).unwrap();
            make_read_only(path).unwrap();
        }
        assert_eq!(is_directory("/proc").unwrap(), Some(true));
        assert_eq!(is_directory("/etc/passwd").unwrap(), Some(false));
    }
}
