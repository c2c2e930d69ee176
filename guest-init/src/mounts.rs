//! Mounting a file system, and those that init itself needs.

use std::fs;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use proto::{AccessTimes, FileSystem, MountFlags};

const NO_SUID_EXEC: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);
/// Nothing in the file system gives anybody rights.
pub(crate) const NO_SUID_DEV_EXEC: MsFlags = NO_SUID_EXEC.union(MsFlags::MS_NODEV);

/// Where the terminals are that the command will have.
pub(crate) const TERMINALS: &str = "/dev/pts";

/// Where init has its own sysfs.
pub(crate) const SYSFS: &str = "/sys";

/// What the user can do about ENODEV.
pub(crate) const UNKNOWN: &str = " (the kernel and /modules do not have this file system)";

/// Mounts what init itself needs, in the initrd.
pub(crate) fn early() -> Result<()> {
    mount_at("/dev", "devtmpfs", "devtmpfs", MsFlags::MS_NOSUID, "")?;
    mount_at("/proc", "proc", "proc", NO_SUID_DEV_EXEC, "")?;
    mount_at(SYSFS, "sysfs", "sysfs", NO_SUID_DEV_EXEC, "")
}

/// Mounts the terminals that the command will have, so that init can open one of them.
pub(crate) fn devpts() -> Result<()> {
    // The group tty has this number everywhere; 620 keeps the terminal to its owner and mesg(1).
    let data = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount_at(TERMINALS, "devpts", "devpts", NO_SUID_EXEC, data)
}

/// Mounts a file system on a directory, which is created if it is missing.
///
/// # Errors
/// With the kernel's [`Errno`] as the cause; says what is mounted where.
pub(crate) fn mount_at(
    target: &str,
    fstype: &str,
    source: &str,
    flags: MsFlags,
    data: &str,
) -> Result<()> {
    create_directory(target)?;
    mount(Some(source), target, Some(fstype), flags, Some(data)).map_err(|errno| {
        let hint = match (errno, fstype) {
            (Errno::ENODEV, _) => UNKNOWN,
            (Errno::EINVAL, "virtiofs") | (Errno::ENOENT, "9p") => {
                " (there is no share with this tag)"
            }
            _ => "",
        };
        anyhow!(errno).context(format!("mount {fstype} {source} on {target}{hint}"))
    })
}

/// As [`mount_at`].
pub(crate) fn mount_file_system(target: &str, fs: &FileSystem) -> Result<()> {
    let flags = flags(fs.flags) | access_times(fs.access_times);
    mount_at(target, &fs.fstype, &fs.source, flags, &fs.data)
}

/// Binds a file or directory, with what is mounted below it, over another.
pub(crate) fn bind(from: &str, to: &str) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("mount {from} on {to}"))
}

/// The options as mount(2) has them.
pub(crate) fn flags(flags: MountFlags) -> MsFlags {
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

fn access_times(times: AccessTimes) -> MsFlags {
    let AccessTimes {
        noatime,
        nodiratime,
        strictatime,
    } = times;
    [
        (noatime, MsFlags::MS_NOATIME),
        (nodiratime, MsFlags::MS_NODIRATIME),
        (strictatime, MsFlags::MS_STRICTATIME),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .collect()
}

/// Creates a directory to mount something on, and those that it is in.
pub(crate) fn create_directory(path: &str) -> Result<()> {
    fs::create_dir_all(path).with_context(|| {
        format!("create the mount point {path} (if the root is read-only, create it beforehand)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_FLAGS: MsFlags = MsFlags::empty();

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
