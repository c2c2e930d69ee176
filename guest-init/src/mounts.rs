//! File systems: init's own few, and those of the command's root.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};
use proto::{FileSystem, Mount, MountFlags};

/// Where the command's root is mounted before it becomes the root.
const STAGE: &str = "/root";

const NO_SUID_DEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NO_SUID_DEV_EXEC: MsFlags = NO_SUID_DEV.union(MsFlags::MS_NOEXEC);

/// A file system that every command has.
struct Standard {
    target: &'static str,
    fstype: &'static str,
    flags: MsFlags,
    data: &'static str,
    /// Left out if the kernel does not know it.
    optional: bool,
}

/// In the order of mounting; /dev, with /dev/pts, has gone before, as init's own is moved.
/// The flags and the size of /dev/shm are Docker's defaults.
const STANDARD: [Standard; 4] = [
    Standard {
        target: "/sys",
        fstype: "sysfs",
        flags: NO_SUID_DEV_EXEC,
        data: "",
        optional: false,
    },
    Standard {
        target: "/sys/fs/cgroup",
        fstype: "cgroup2",
        flags: NO_SUID_DEV_EXEC,
        data: "",
        optional: true,
    },
    Standard {
        target: "/dev/shm",
        fstype: "tmpfs",
        flags: NO_SUID_DEV_EXEC,
        data: "mode=1777,size=64m",
        optional: false,
    },
    Standard {
        target: "/dev/mqueue",
        fstype: "mqueue",
        flags: NO_SUID_DEV_EXEC,
        data: "",
        optional: true,
    },
];

/// Links in /dev that programs expect and the kernel does not make.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// Mounts what init itself needs, in the initrd.
pub(crate) fn early() -> Result<()> {
    mount_at("/dev", "devtmpfs", "devtmpfs", MsFlags::MS_NOSUID, "")?;
    mount_at("/proc", "proc", "proc", NO_SUID_DEV_EXEC, "")?;
    mount_at("/sys", "sysfs", "sysfs", NO_SUID_DEV_EXEC, "")
}

/// Mounts the terminals that the command will have, so that init can open one of them.
pub(crate) fn devpts() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // The group tty has this number everywhere; 620 keeps the terminal to its owner and mesg(1).
    let data = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount_at("/dev/pts", "devpts", "devpts", flags, data)
}

/// Makes the command's file systems the only ones that this process sees.
///
/// Call it in the new PID, mount and IPC namespaces: /proc and /dev/mqueue show those.
pub(crate) fn enter_root(root: &FileSystem, mounts: &[Mount]) -> Result<()> {
    let dev = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open("/dev")?;
    // The only path to it once the root is another.
    let dev_path = format!("/proc/self/fd/{}", dev.as_raw_fd());
    mount_file_system(STAGE, root).context("the root")?;
    for own in ["/proc", "/sys"] {
        umount2(own, MntFlags::MNT_DETACH).with_context(|| format!("unmount init's {own}"))?;
    }
    // The initrd's file system cannot be unmounted, nor pivot_root(2) be used on it: it is covered
    // instead, so that no path leads to it (kernel, filesystems/ramfs-rootfs-initramfs).
    chdir(STAGE)?;
    rearrange(".", "/", MsFlags::MS_MOVE)?;
    chroot(".").context("change the root")?;
    chdir("/")?;

    // From here on, links in the root cannot lead out of it.
    mount_at("/proc", "proc", "proc", NO_SUID_DEV_EXEC, "")?;
    create_directory("/dev")?;
    rearrange(&dev_path, "/dev", MsFlags::MS_MOVE)?;
    for fs in &STANDARD {
        mount_standard(fs)?;
    }
    for (target, link) in LINKS {
        // Devices are one file system in the whole guest: it may be there already.
        let _ = symlink(target, link);
    }
    for Mount {
        target,
        file_system,
    } in mounts
    {
        mount_file_system(target, file_system)?;
    }
    Ok(())
}

/// Binds the command's terminal over /dev/console, where programs look for the container's.
pub(crate) fn console(terminal: &str) -> Result<()> {
    rearrange(terminal, "/dev/console", MsFlags::MS_BIND)
}

/// Moves or binds what is mounted already.
fn rearrange(from: &str, to: &str, how: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, how, None::<&str>)
        .with_context(|| format!("mount {from} on {to} ({how:?})"))
}

fn mount_standard(fs: &Standard) -> Result<()> {
    let mounted = mount_at(fs.target, fs.fstype, fs.fstype, fs.flags, fs.data);
    match mounted {
        Err(error) if fs.optional && error.downcast_ref() == Some(&Errno::ENODEV) => Ok(()),
        mounted => mounted,
    }
}

fn mount_file_system(target: &str, fs: &FileSystem) -> Result<()> {
    mount_at(target, &fs.fstype, &fs.source, flags(fs.flags), &fs.data)
}

fn mount_at(target: &str, fstype: &str, source: &str, flags: MsFlags, data: &str) -> Result<()> {
    create_directory(target)?;
    mount(Some(source), target, Some(fstype), flags, Some(data)).map_err(|errno| {
        let hint = match (errno, fstype) {
            (Errno::ENODEV, _) => " (the kernel and /modules do not have this file system)",
            (Errno::EINVAL, "virtiofs") => " (there is no share with this tag)",
            _ => "",
        };
        anyhow!(errno).context(format!("mount {fstype} {source} on {target}{hint}"))
    })
}

fn create_directory(path: &str) -> Result<()> {
    fs::create_dir_all(path).with_context(|| {
        format!("create the mount point {path} (if the root is read-only, create it beforehand)")
    })
}

fn flags(flags: MountFlags) -> MsFlags {
    let MountFlags {
        read_only,
        nosuid,
        nodev,
        noexec,
    } = flags;
    [
        (read_only, MsFlags::MS_RDONLY),
        (nosuid, MsFlags::MS_NOSUID),
        (nodev, MsFlags::MS_NODEV),
        (noexec, MsFlags::MS_NOEXEC),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_FLAGS: MsFlags = MsFlags::empty();

    #[test]
    fn nothing_is_mounted_over_what_it_needs() {
        for (at, fs) in STANDARD.iter().enumerate() {
            let hidden = |earlier: &Standard| earlier.target.starts_with(fs.target);
            assert!(!STANDARD[..at].iter().any(hidden), "{}", fs.target);
        }
    }

    #[test]
    fn each_flag_is_its_own() {
        let with = |set: fn(&mut MountFlags)| {
            let mut all_but = MountFlags::default();
            set(&mut all_but);
            flags(all_but)
        };
        assert_eq!(with(|_| ()), NO_FLAGS);
        assert_eq!(with(|f| f.read_only = true), MsFlags::MS_RDONLY);
        assert_eq!(with(|f| f.nosuid = true), MsFlags::MS_NOSUID);
        assert_eq!(with(|f| f.nodev = true), MsFlags::MS_NODEV);
        assert_eq!(with(|f| f.noexec = true), MsFlags::MS_NOEXEC);
    }

    #[test]
    fn failures_name_the_file_system_and_the_place() {
        let error = mount_at("/proc/no/such", "x", "y", NO_FLAGS, "").unwrap_err();
        assert!(format!("{error:#}").contains("/proc/no/such"), "{error:#}");
        let folder = std::env::temp_dir();
        let folder = folder.to_str().unwrap();
        let error = mount_at(folder, "nosuchfs", "tag", NO_FLAGS, "").unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains(&format!("nosuchfs tag on {folder}")),
            "{text}"
        );
    }
}
