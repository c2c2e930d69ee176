//! Whether the guest tells of each close(2) (FUSE_FLUSH), which is a request for each file that a program opens.
//!
//! A file system of the host that is told of it, too, as NFS is, may have an error to tell then. Others have nothing to do but
//! to end locks, of which the guest's kernel tells in any case if it is one of ours.

use std::io::{self, BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};

use virtiofsd::filesystem::OpenOptions;

/// File systems of Linux that do nothing at close(2): their `struct file_operations` have no `flush`.
const SILENT: [&str; 22] = [
    "bpf", "btrfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "erofs", "ext2", "ext3", "ext4",
    "f2fs", "iso9660", "mqueue", "overlay", "proc", "ramfs", "squashfs", "sysfs", "tmpfs", "vfat",
    "xfs", "zfs",
];

/// What a share wants to hear.
#[derive(Debug)]
pub(super) struct Flushes {
    /// Nothing of what is mounted there has anything to do at close(2).
    silent: bool,
    of_locked: AtomicBool,
}

impl Flushes {
    /// For the directory at `path`, with what `mounts` (proc(5), mountinfo) has there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn new(mounts: impl io::Read, path: &str) -> io::Result<Self> {
        let mut silent = true;
        let mut around = (0, true);
        for line in BufReader::new(mounts).lines() {
            let line = line?;
            let Some((at, is_silent)) = mount(&line) else {
                continue;
            };
            if is_below(at, path) {
                silent &= is_silent;
            } else if is_below(path, at) && at.len() >= around.0 {
                // The last one there hides others.
                around = (at.len(), is_silent);
            }
        }
        Ok(Self {
            silent: silent && around.1,
            of_locked: AtomicBool::new(false),
        })
    }

    /// Whether the guest tells of files that it has locked, whatever [`Self::options`] said.
    pub(super) fn of_locked(&self, told: bool) {
        self.of_locked.store(told, Ordering::Relaxed);
    }

    /// For a file that is opened.
    pub(super) fn options(&self) -> OpenOptions {
        if self.silent && self.of_locked.load(Ordering::Relaxed) {
            OpenOptions::NOFLUSH
        } else {
            OpenOptions::empty()
        }
    }
}

/// Mount point, and whether the file system is silent.
fn mount(line: &str) -> Option<(&str, bool)> {
    let (mount, source) = line.split_once(" - ")?;
    let at = mount.split(' ').nth(4)?;
    let kind = source.split(' ').next()?;
    Some((at, SILENT.contains(&kind)))
}

/// Whether a path is that directory or leads through it. Escaped characters (`\\040`) may hide that: then the mount
/// around it counts.
fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /dev rw - devtmpfs udev rw
22 20 0:30 / /srv rw master:3 - nfs4 host:/srv rw
23 22 0:31 / /srv/local rw - xfs /dev/sdb rw
24 20 0:32 / /run/share rw - tmpfs none rw
25 24 0:33 / /run/share/root rw - overlay overlay rw
26 24 0:30 /v /run/share/volumes/0 rw - nfs4 host:/srv rw
27 20 0:34 / /run/shared rw - fuse.sshfs host: rw
28 21 0:35 / /dev/shm rw - tmpfs tmpfs rw
";

    /// What is said of files there, to a guest that tells of locks.
    fn options(path: &str) -> OpenOptions {
        let flushes = Flushes::new(MOUNTS.as_bytes(), path).unwrap();
        assert_eq!(flushes.options(), OpenOptions::empty(), "too soon");
        flushes.of_locked(true);
        flushes.options()
    }

    #[test]
    fn what_is_mounted_there_and_below_counts() {
        for silent in [
            "/home",
            "/dev",
            "/dev/shm",
            "/srv/local/x",
            "/run/share/root",
        ] {
            assert_eq!(options(silent), OpenOptions::NOFLUSH, "{silent}");
        }
        for told in [
            "/",
            "/srv",
            "/srv/other",
            "/run",
            "/run/share",
            "/run/shared/x",
        ] {
            assert_eq!(options(told), OpenOptions::empty(), "{told}");
        }
    }
}
