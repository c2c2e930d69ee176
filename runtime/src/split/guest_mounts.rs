//! The container's mounts, as init makes them in the VM.

use anyhow::{Result, bail};
use oci_spec::runtime as oci;
use proto::{AccessTimes, FileSystem, Mount, MountFlags, Mountable};

use super::clean;
use crate::spec::is_bind;

/// What becomes of one of the container's mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// /proc, /dev and /dev/pts: init makes its own, runc makes one for the monitor.
    Both,
    /// Shared from the host.
    Volume,
    /// In the guest alone.
    Guest,
}

/// Which part has to do with a mount.
pub(super) fn part(mount: &oci::Mount) -> Part {
    let path = clean(mount.destination());
    match (path.as_str(), kind(mount)) {
        _ if is_bind(mount) => Part::Volume,
        ("/proc", "proc") | ("/dev", "tmpfs") | ("/dev/pts", "devpts") => Part::Both,
        _ => Part::Guest,
    }
}

/// Whether nothing can be written through it.
pub(super) fn is_read_only(mount: &oci::Mount) -> bool {
    Sorted::of(mount).flags.read_only
}

fn kind(mount: &oci::Mount) -> &str {
    mount.typ().as_deref().unwrap_or_default()
}

/// The mounts for init, in the container's order. Volumes are numbered in this order, too.
///
/// # Errors
/// When a file system is not one that a guest can have.
pub(super) fn translate(mounts: &[oci::Mount], systemd: bool) -> Result<Vec<Mount>> {
    let mut volumes = 0;
    let mut translated = Vec::new();
    for mount in mounts {
        let what = match part(mount) {
            Part::Both => None,
            Part::Guest => file_system(mount, systemd)?,
            Part::Volume => {
                volumes += 1;
                Some(Mountable::Bind {
                    path: format!("volumes/{}", volumes - 1),
                    flags: Sorted::of(mount).flags,
                })
            }
        };
        translated.extend(what.map(|what| Mount {
            target: clean(mount.destination()),
            what,
        }));
    }
    Ok(translated)
}

fn file_system(mount: &oci::Mount, systemd: bool) -> Result<Option<Mountable>> {
    let options = Sorted::of(mount);
    let what = |fstype: &str, data: String| FileSystem {
        fstype: fstype.into(),
        source: fstype.into(),
        flags: options.flags,
        data,
        access_times: options.times,
    };
    Ok(Some(match kind(mount) {
        "tmpfs" => Mountable::FileSystem(what("tmpfs", options.data.join(","))),
        "proc" => Mountable::FileSystem(what("proc", options.data.join(","))),
        "sysfs" => Mountable::FileSystem(what("sysfs", String::new())),
        "mqueue" => Mountable::Optional(what("mqueue", String::new())),
        // systemd makes its own.
        "cgroup" | "cgroup2" if systemd => return Ok(None),
        // The guest has version 2 alone.
        "cgroup" | "cgroup2" => Mountable::Optional(what("cgroup2", String::new())),
        other => bail!(
            "mounts: {}: a file system of type {other:?} cannot be had in a VM",
            mount.destination().display()
        ),
    }))
}

/// Mount options in two groups.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted<'a> {
    /// What init can do for any mount.
    flags: MountFlags,
    times: AccessTimes,
    /// What only the file system knows.
    data: Vec<&'a str>,
}

impl<'a> Sorted<'a> {
    /// Sorts the options; of two that contradict each other the later one counts. Those for which
    /// a guest has no use are dropped: how mounts propagate between namespaces, when data are written, and copying what
    /// a tmpfs hides.
    fn of(mount: &'a oci::Mount) -> Self {
        let mut sorted = Self::default();
        let (flags, times) = (&mut sorted.flags, &mut sorted.times);
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "ro" | "rro" => flags.read_only = true,
                "rw" | "rrw" => flags.read_only = false,
                "nosuid" | "rnosuid" => flags.nosuid = true,
                "suid" | "rsuid" => flags.nosuid = false,
                "nodev" | "rnodev" => flags.nodev = true,
                "dev" | "rdev" => flags.nodev = false,
                "noexec" | "rnoexec" => flags.noexec = true,
                "exec" | "rexec" => flags.noexec = false,
                "noatime" => times.noatime = true,
                "atime" => times.noatime = false,
                "nodiratime" => times.nodiratime = true,
                "diratime" => times.nodiratime = false,
                "strictatime" => times.strictatime = true,
                "nostrictatime" => times.strictatime = false,
                option if DROPPED.contains(&option) => {}
                option => sorted.data.push(option),
            }
        }
        sorted
    }
}

/// Options of the specification (config.md, Mounts) that are no file system's own.
const DROPPED: [&str; 43] = [
    "",
    "acl",
    "async",
    "bind",
    "defaults",
    "dirsync",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdiratime",
    "relatime",
    "remount",
    "ridmap",
    "rnoatime",
    "rnodiratime",
    "rnorelatime",
    "rnostrictatime",
    "rnosymfollow",
    "rprivate",
    "rrelatime",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsymfollow",
    "runbindable",
    "shared",
    "silent",
    "slave",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
#[path = "guest_mounts_test.rs"]
mod tests;
