//! What of an image is not copied.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

/// Where file systems of the guest's are mounted; what an image has there is not to be seen. Beside these,
/// lost+found is the disk's own.
const ALWAYS: [&str; 4] = ["/dev", "/proc", "/sys", "/lib/modules"];

/// What a file system knows a file by.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Names, each in the directory that it is in: /lib may be a link to /usr/lib.
#[derive(Debug, Default)]
pub(super) struct Exclusions(HashSet<(Identity, CString)>);

impl Exclusions {
    /// Those of every image, and these absolute paths, as they are found in the root.
    pub(super) fn find(root: impl AsFd, paths: &[String]) -> Result<Self> {
        let mut found = HashSet::new();
        for path in ALWAYS.into_iter().chain(paths.iter().map(String::as_str)) {
            let Some((parent, name)) = path.trim_end_matches('/').rsplit_once('/') else {
                continue;
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let parent = match openat2(&root, format!("{parent}/"), flags, Mode::empty(), resolve) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                parent => parent.with_context(|| format!("look up {path}"))?,
            };
            let parent = fstat(parent).with_context(|| format!("look up {path}"))?;
            found.insert((identity(&parent), CString::new(name)?));
        }
        Ok(Self(found))
    }

    /// Whether the file with this name in this directory is left out.
    pub(super) fn has(&self, directory: Identity, name: &CStr) -> bool {
        self.0.contains(&(directory, name.to_owned()))
    }
}
