//! All that a file has beside its contents: owner, permissions, extended attributes, and times.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    lgetxattr, llistxattr, lsetxattr, utimensat,
};
use rustix::io::Errno;

/// The longest list of names, and the longest value (xattr(7)).
const MOST: usize = 64 << 10;

/// Copies attributes; keeps the room that they take on the way.
pub(super) struct Attributes {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Attributes {
    pub(super) fn new() -> Self {
        Self {
            names: vec![0; MOST],
            value: vec![0; MOST],
        }
    }

    /// Copies those of the file with this name in a directory, which are `stat` as far as that has them,
    /// to the one in another, which nobody else changes.
    ///
    /// The order matters: another owner takes set-user-id bits and capabilities away, an access control
    /// list brings permissions, and all of these could be changes that have a time.
    pub(super) fn copy(
        &mut self,
        (from, to): (BorrowedFd, BorrowedFd),
        name: &CStr,
        stat: &Stat,
    ) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context("owner")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let mode = Mode::from_raw_mode(stat.st_mode);
            chmodat(to, name, mode, AtFlags::empty()).context("permissions")?;
        }
        self.extended(&path(from, name), &path(to, name))?;
        utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).context("times")
    }

    fn extended(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let length = match llistxattr(from, self.names.as_mut_slice()) {
            Err(Errno::NOTSUP) => 0,
            length => length.context("list of extended attributes")?,
        };
        let names = self.names.get(..length).unwrap_or_default();
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let length = match lgetxattr(from, name, self.value.as_mut_slice()) {
                // The share lists access control lists that it may not have for the guest.
                Err(Errno::NODATA | Errno::NOTSUP) => continue,
                length => length.with_context(|| format!("attribute {name:?}"))?,
            };
            let value = self.value.get(..length).unwrap_or_default();
            lsetxattr(to, name, value, XattrFlags::empty())
                .with_context(|| format!("attribute {name:?}"))?;
        }
        Ok(())
    }
}

/// A path by which the calls that take no directory find a file in one.
pub(super) fn path(directory: BorrowedFd, name: &CStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    path
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The kernel's numbers of nanoseconds are below one billion; their type depends on the architecture.
fn time(tv_sec: i64, nanoseconds: impl TryInto<i64>) -> Timespec {
    Timespec {
        tv_sec,
        tv_nsec: nanoseconds.try_into().unwrap_or_default(),
    }
}
