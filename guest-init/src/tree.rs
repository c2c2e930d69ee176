//! Trees of mounts that are held before they have a place: what a bind mount is made of.
//!
//! They are taken while the path to their source is there, and get their place once the root is
//! another (open_tree(2), fsopen(2), fsmount(2), move_mount(2), mount_setattr(2)).

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::MsFlags;
use nix::unistd::{chroot, fchdir};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::mounts::create_directory;
use crate::syscalls;

/// A copy of a mount, from some directory or file of it on, with all mounts below that.
pub(crate) struct Tree(OwnedFd);

impl Tree {
    /// Copies what is at a path below a directory, or the directory itself if the path is empty.
    pub(crate) fn copy(directory: impl AsFd, path: &str) -> Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(directory, path, flags)
            .map(Self)
            .map_err(|error| anyhow!(errno(error)).context(format!("bind mount of {path:?}")))
    }

    /// The file system on a device, with these options.
    ///
    /// # Errors
    /// As mount(2): ENODEV if the kernel does not know the type, EINVAL if the device has another one.
    pub(crate) fn of_device(
        fstype: &str,
        device: &str,
        options: MountAttrFlags,
    ) -> Result<Self, Errno> {
        let mount = || {
            let fs = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&fs, "source", device)?;
            if options.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
                // The file system itself, too, which would write to the disk otherwise.
                fsconfig_set_flag(&fs, "ro")?;
            }
            fsconfig_create(&fs)?;
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, options)
        };
        mount().map(Self).map_err(errno)
    }

    /// Adds these of mount(2)'s options to all its mounts. Of what the host has mounted below it, the
    /// guest's kernel makes mounts when they are first used, with the options of the one that they are in.
    pub(crate) fn restrict(&self, flags: MsFlags) -> Result<()> {
        Ok(syscalls::add_mount_flags(&self.0, flags.bits(), true)?)
    }

    /// A descriptor of the directory that it begins with, by which its files can be reached.
    pub(crate) fn directory(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.0, ".", flags, Mode::empty())
            .map_err(|error| anyhow!(errno(error)).context("open the directory"))
    }

    /// Mounts it on a path, which is created if it is missing: a directory, or an empty file.
    pub(crate) fn attach(self, target: &str) -> Result<()> {
        if File::from(self.0.try_clone()?).metadata()?.is_dir() {
            create_directory(target)?;
        } else {
            create_file(target)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
            | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS
            | MoveMountFlags::MOVE_MOUNT_T_AUTOMOUNTS;
        move_mount(&self.0, "", AT_FDCWD, target, flags)
            .map_err(|error| anyhow!(errno(error)).context(format!("mount on {target}")))
    }

    /// Makes it the root, and the working directory, of this process.
    pub(crate) fn become_root(self) -> Result<()> {
        let directory = self.0.try_clone()?;
        // A process whose root is the initrd's file system, which cannot be unmounted, cannot use
        // pivot_root(2) on it: it is covered instead, so that no path leads to it (kernel,
        // filesystems/ramfs-rootfs-initramfs).
        self.attach("/")?;
        fchdir(directory)?;
        chroot(".").context("change the root")
    }
}

/// Forbids writing in what is mounted at a path, but not in other mounts below it.
pub(crate) fn make_read_only(path: &str) -> Result<()> {
    let place = open(path)?;
    syscalls::add_mount_flags(&place, libc::MOUNT_ATTR_RDONLY, false)
        .with_context(|| format!("make {path} read-only"))
}

/// A descriptor of a path, with which nothing can be read.
pub(crate) fn open(path: &str) -> Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .with_context(|| format!("open {path}"))
}

/// An empty file, to mount a file on, and the directories that it is in; it may be there already.
pub(crate) fn create_file(path: &str) -> Result<()> {
    if fs::exists(path).unwrap_or_default() {
        return Ok(());
    }
    if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
        create_directory(parent)?;
    }
    File::create(path).map(drop).with_context(|| {
        format!("create the mount point {path} (if the root is read-only, create it beforehand)")
    })
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use nix::sys::statvfs::{FsFlags, fstatvfs};

    use super::*;

    #[test]
    fn mount_and_mount_setattr_have_the_same_flags() {
        for (one, other) in [
            (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
            (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
            (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
            (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        ] {
            assert_eq!(one.bits(), other);
        }
    }

    #[test]
    fn a_mount_point_that_is_there_is_left_as_it_is() {
        create_file("/etc/passwd").unwrap();
        assert!(fs::metadata("/etc/passwd").unwrap().len() > 0);
        let error = format!("{:#}", create_file("/proc/no/such").unwrap_err());
        assert!(error.contains("/proc/no"), "{error}");
    }

    #[test]
    fn a_file_system_that_the_kernel_does_not_know_is_no_mount() {
        let error = Tree::of_device("nosuchfs", "/dev/null", MountAttrFlags::empty()).err();
        // Who may not mount is told nothing else.
        assert!(
            matches!(error, Some(Errno::ENODEV | Errno::EPERM)),
            "{error:?}"
        );
    }

    #[test]
    fn what_is_on_a_device_has_the_options_that_are_asked() {
        let no_devices = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        for (options, restricted, read_only) in [
            (MountAttrFlags::empty(), false, false),
            (no_devices, true, false),
            (no_devices | MountAttrFlags::MOUNT_ATTR_RDONLY, true, true),
        ] {
            // A file system that takes any source for one.
            let tree = match Tree::of_device("tmpfs", "/dev/null", options) {
                Err(Errno::EPERM) => return eprintln!("skipped: mounting needs root"),
                tree => tree.unwrap(),
            };
            let flags = fstatvfs(&tree.0).unwrap().flags();
            assert_eq!(flags.contains(FsFlags::ST_NOSUID), restricted);
            assert_eq!(flags.contains(FsFlags::ST_NODEV), restricted);
            assert!(!flags.contains(FsFlags::ST_NOEXEC));
            assert_eq!(flags.contains(FsFlags::ST_RDONLY), read_only);
        }
    }

    #[test]
    fn a_source_that_is_missing_is_named() {
        let error = Tree::copy(AT_FDCWD, "no/such/source").err().unwrap();
        assert!(format!("{error:#}").contains("no/such/source"));
    }
}
