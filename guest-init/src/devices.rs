//! /dev as a container has it, and device nodes.
//!
//! The kernel's own devtmpfs has all devices of the guest, and is one in all namespaces: the ports
//! of init are in it. The command has a file system of its own instead.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};
use proto::Device;

use crate::mounts::{TERMINALS, bind, mount_at};
use crate::tree::{self, Tree};

/// Where programs look for the container's terminal.
const CONSOLE: &str = "/dev/console";

/// Name, major and minor number of the OCI runtime specification's default devices (config-linux.md);
/// the numbers are those of the kernel's admin-guide/devices.txt.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The symbolic links that the specification wants beside them (runtime-linux.md), and ptmx.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Mounts a /dev with the default devices and these terminals. Needs /proc.
pub(crate) fn mount(terminals: Tree) -> Result<()> {
    // Docker's options. Not noexec: /dev/zero may be mapped to be executed.
    mount_at(
        "/dev",
        "tmpfs",
        "tmpfs",
        MsFlags::MS_NOSUID,
        "mode=755,size=64m",
    )?;
    terminals.attach(TERMINALS)?;
    for (name, major, minor) in NODES {
        create_node(&Device {
            path: format!("/dev/{name}"),
            block: false,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })?;
    }
    let core = fs::exists("/proc/kcore")?.then_some(("/proc/kcore", "/dev/core"));
    for (to, link) in LINKS.into_iter().chain(core) {
        symlink(to, link).with_context(|| format!("link {link} to {to}"))?;
    }
    Ok(())
}

/// Binds the command's terminal over /dev/console.
pub(crate) fn bind_console(terminal: &str) -> Result<()> {
    tree::create_file(CONSOLE)?;
    bind(terminal, CONSOLE)
}

/// Makes device nodes.
pub(crate) fn create(devices: &[Device]) -> Result<()> {
    devices.iter().try_for_each(|device| {
        create_node(device).with_context(|| format!("make the device {}", device.path))
    })
}

fn create_node(device: &Device) -> Result<()> {
    if let Some(parent) = Path::new(&device.path).parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    let kind = if device.block {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    let number = makedev(device.major.into(), device.minor.into());
    match mknod(device.path.as_str(), kind, Mode::empty(), number) {
        Err(Errno::EEXIST) => check_same(device, number)?,
        made => made?,
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    chown(device.path.as_str(), Some(uid), Some(gid))?;
    // Neither the umask nor chown(2), which drops set-id bits, has a say in it.
    Ok(fs::set_permissions(
        &device.path,
        PermissionsExt::from_mode(device.mode & 0o7777),
    )?)
}

/// Checks that what is there already is the device that is wanted, and not a link to it.
fn check_same(device: &Device, number: u64) -> Result<()> {
    let there = fs::symlink_metadata(&device.path)?;
    let kind = there.file_type();
    let same_kind = if device.block {
        kind.is_block_device()
    } else {
        kind.is_char_device()
    };
    if !same_kind || there.rdev() != number {
        bail!("something else is there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null(path: &str) -> Device {
        Device {
            path: path.to_owned(),
            block: false,
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn only_the_same_device_may_be_there_already() {
        let number = makedev(1, 3);
        check_same(&null("/dev/null"), number).unwrap();
        for other in [null("/dev/zero"), null("/etc/passwd"), null("/dev/stdin")] {
            assert!(check_same(&other, number).is_err(), "{}", other.path);
        }
        let block = Device {
            block: true,
            ..null("/dev/null")
        };
        assert!(check_same(&block, number).is_err());
    }

    #[test]
    fn a_failure_names_the_device() {
        let error = create(&[null("/proc/no/such/device")]).unwrap_err();
        assert!(
            format!("{error:#}").contains("/proc/no/such/device"),
            "{error:#}"
        );
    }
}
