//! Files of which the kernel makes up the contents when they are read.
//!
//! They have no size, or another one than is read, so that a guest that goes by it would find nothing: it has to ask
//! for each read.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{PoisonError, RwLock};

use nix::sys::statfs::{self, FsType, fstatfs};

/// Most file systems that are remembered: there are as many as mounts in the share.
const MAX_KNOWN: usize = 1024;

/// Which file systems have such files, by their device numbers.
#[derive(Default)]
pub(super) struct VirtualFiles {
    known: RwLock<BTreeMap<u64, bool>>,
}

impl VirtualFiles {
    /// Whether an open file is one. The file system is asked once: one on a network may take long.
    pub(super) fn has(&self, file: &File) -> bool {
        let Ok(metadata) = file.metadata() else {
            return false;
        };
        let device = metadata.dev();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = known.get(&device) {
            return known;
        }
        drop(known);
        let is_virtual = fstatfs(file).is_ok_and(|found| is_virtual(found.filesystem_type()));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_KNOWN {
            known.insert(device, is_virtual);
        }
        is_virtual
    }
}

fn is_virtual(kind: FsType) -> bool {
    [
        statfs::PROC_SUPER_MAGIC,
        statfs::SYSFS_MAGIC,
        statfs::CGROUP_SUPER_MAGIC,
        statfs::CGROUP2_SUPER_MAGIC,
        statfs::DEBUGFS_MAGIC,
        statfs::TRACEFS_MAGIC,
        statfs::SECURITYFS_MAGIC,
        statfs::BPF_FS_MAGIC,
    ]
    .contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_and_those_on_disks_are_not() {
        let files = VirtualFiles::default();
        for _ in 0..2 {
            assert!(files.has(&File::open("/proc/version").unwrap()));
            let file = tempfile::tempfile().unwrap();
            assert!(!files.has(&file));
        }
        assert_eq!(files.known.read().unwrap().len(), 2);
    }
}
