//! The command's root: all the files that it can reach.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, MsFlags, umount2};
use proto::{FileSystem, MountFlags, Mountable, Root, Start};

use crate::mounts::{self, NO_SUID_DEV_EXEC, TERMINALS, mount_at};
use crate::tree::{self, Tree};
use crate::{console, crypto, devices, disks, hide, root_disk};

/// Where the root's file system is mounted until all that is wanted has been taken from it.
const FILES: &str = "/files";

/// Where the command finds the kernel's modules, and where init has those for a moment that are a file system of their own.
const MODULES: &str = "/lib/modules";

/// Where the command finds its name servers, and where init puts the file, in the initrd.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const OWN_RESOLV_CONF: &str = "/resolv.conf";

/// Something to mount; the path to where it comes from may be gone by then.
enum Source<'a> {
    FileSystem(&'a FileSystem),
    Optional(&'a FileSystem),
    Bind(Tree),
    Disk(disks::Mounted<'a>),
}

/// Makes the command's file systems the only ones that this process sees, and its root the root.
///
/// Call it in the command's namespaces: /proc, /dev/mqueue and cgroup file systems show those. `copied` hears of the files and
/// bytes that are on a root disk which is being filled.
pub(crate) fn enter(start: &Start, copied: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let Taken {
        mut root,
        modules,
        mut mounts,
    } = take(start)?;
    let (disks, mounted) = disks::take(&start.disks, modules.as_ref())?;
    if let Some(wanted) = &start.root_disk {
        root = root_disk::open(wanted, &disks.node(&wanted.id)?, &root, copied)?;
    }
    let adapters = crypto::provide(start.crypto_adapters, modules.as_ref())?;
    for disk in mounted {
        let target = disk.target;
        let position = before_those_below(mounts.iter().map(|(target, _)| *target), target);
        mounts.insert(position, (target, Source::Disk(disk)));
    }
    let terminals = Tree::copy(AT_FDCWD, TERMINALS)?;
    let resolv_conf = start.resolv_conf.as_deref().map(resolv_conf).transpose()?;
    for own in [FILES, "/dev", "/sys", "/proc"] {
        umount2(own, MntFlags::MNT_DETACH).with_context(|| format!("unmount init's {own}"))?;
    }
    root.become_root()?;

    // From here on, links in the root cannot lead out of it.
    mount_at("/proc", "proc", "proc", NO_SUID_DEV_EXEC, "")?;
    devices::mount(terminals)?;
    if let Some(tree) = modules
        && let Err(error) = tree.attach(MODULES)
    {
        // A root that has no such directory, and takes none, has no modprobe either.
        console::debug(format_args!("{error:#}"));
    }
    for (target, source) in mounts {
        place(target, source)?;
    }
    if let Some(file) = resolv_conf {
        file.attach(RESOLV_CONF)?;
    }
    disks.publish()?;
    devices::create(adapters.as_slice())?;
    devices::create(&start.devices)?;
    create_working_directory(&start.process.cwd)
}

/// Forbids what the command may not do with its files, once init has made all that it makes there.
pub(crate) fn seal(start: &Start) -> Result<()> {
    for mount in &start.mounts {
        if let Mountable::FileSystem(fs) | Mountable::Optional(fs) = &mount.what
            && is_sealed_later(fs)
        {
            tree::make_read_only(&mount.target)?;
        }
    }
    if start.root.read_only {
        tree::make_read_only("/")?;
    }
    for path in &start.read_only_paths {
        hide::make_read_only(path)?;
    }
    for path in &start.masked_paths {
        hide::mask(path)?;
    }
    Ok(())
}

/// Where in the order of mounts at these paths a disk's belongs.
///
/// What is below it would be hidden by it: a volume at /data/cache stays visible in a disk at /data,
/// whichever was named first, as Docker sees to it among volumes. At the same path it comes later and
/// hides the other: that is the volume that Docker makes because the image declares one there.
fn before_those_below<'a>(
    mut targets: impl ExactSizeIterator<Item = &'a str>,
    target: &str,
) -> usize {
    let count = targets.len();
    let is_below = |path: &str| {
        let rest = path.strip_prefix(target);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    targets.position(is_below).unwrap_or(count)
}

/// The root, and what to mount in it, where.
struct Taken<'a> {
    root: Tree,
    modules: Option<Tree>,
    mounts: Vec<(&'a str, Source<'a>)>,
}

fn take(start: &Start) -> Result<Taken<'_>> {
    let Root {
        file_system, path, ..
    } = &start.root;
    mounts::mount_file_system(FILES, file_system).context("the root")?;
    let files = tree::open(FILES)?;
    // First, so that it is the first in /proc/mounts, as programs may expect.
    let root = Tree::copy(&files, path).context("the root")?;
    let modules = start.modules.as_ref().map(|what| modules(&files, what));
    let modules = modules.transpose().context("the kernel's modules")?;
    let mounts = start
        .mounts
        .iter()
        .map(|mount| {
            let source = source(&files, &mount.what).with_context(|| mount.target.clone())?;
            Ok((mount.target.as_str(), source))
        })
        .collect::<Result<_>>()?;
    Ok(Taken {
        root,
        modules,
        mounts,
    })
}

/// The directories of the kernel's modules, which are read before the command's root is there.
fn modules(files: &fs::File, what: &Mountable) -> Result<Tree> {
    match what {
        Mountable::FileSystem(fs) | Mountable::Optional(fs) => {
            mounts::mount_file_system(MODULES, fs)?;
            let tree = Tree::copy(AT_FDCWD, MODULES)?;
            umount2(MODULES, MntFlags::MNT_DETACH)
                .with_context(|| format!("unmount init's {MODULES}"))?;
            Ok(tree)
        }
        Mountable::Bind { path, flags } => bind(files, path, *flags),
    }
}

fn source<'a>(files: &fs::File, what: &'a Mountable) -> Result<Source<'a>> {
    Ok(match what {
        Mountable::FileSystem(fs) => Source::FileSystem(fs),
        Mountable::Optional(fs) => Source::Optional(fs),
        Mountable::Bind { path, flags } => Source::Bind(bind(files, path, *flags)?),
    })
}

fn bind(files: &fs::File, path: &str, flags: MountFlags) -> Result<Tree> {
    let tree = Tree::copy(files, path)?;
    tree.restrict(mounts::flags(flags))?;
    Ok(tree)
}

/// A file with these contents, which nobody can change.
fn resolv_conf(contents: &str) -> Result<Tree> {
    fs::write(OWN_RESOLV_CONF, contents).with_context(|| format!("write {OWN_RESOLV_CONF}"))?;
    let file = Tree::copy(AT_FDCWD, OWN_RESOLV_CONF)?;
    file.restrict(NO_SUID_DEV_EXEC | MsFlags::MS_RDONLY)?;
    Ok(file)
}

fn place(target: &str, source: Source) -> Result<()> {
    match source {
        Source::Bind(tree) => tree.attach(target),
        Source::Disk(disk) => disk.attach(),
        Source::FileSystem(fs) => mount_file_system(target, fs),
        Source::Optional(fs) => match mount_file_system(target, fs) {
            Err(error) if error.downcast_ref() == Some(&Errno::ENODEV) => Ok(()),
            mounted => mounted,
        },
    }
}

fn mount_file_system(target: &str, fs: &FileSystem) -> Result<()> {
    if fs.fstype != "tmpfs" {
        return mounts::mount_file_system(target, fs);
    }
    let mut fs = fs.clone();
    fs.flags.read_only = false;
    if let Ok(covered) = fs::metadata(target) {
        fs.data = with_mode(&fs.data, covered.permissions().mode() & 0o7777);
    }
    mounts::mount_file_system(target, &fs)
}

/// A tmpfs is empty, so that a read-only one may need mount points first.
fn is_sealed_later(fs: &FileSystem) -> bool {
    fs.fstype == "tmpfs" && fs.flags.read_only
}

/// Options of a tmpfs, with this mode unless they have one.
fn with_mode(data: &str, mode: u32) -> String {
    if data.split(',').any(|option| option.starts_with("mode=")) {
        return data.to_owned();
    }
    let separator = if data.is_empty() { "" } else { "," };
    format!("{data}{separator}mode={mode:o}")
}

fn create_working_directory(path: &str) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("create the working directory {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_has_the_mode_that_was_asked_for_or_there() {
        assert_eq!(with_mode("", 0o1777), "mode=1777");
        assert_eq!(with_mode("size=1m", 0o755), "size=1m,mode=755");
        assert_eq!(with_mode("mode=700,size=1m", 0o755), "mode=700,size=1m");
    }

    #[test]
    fn a_disk_hides_what_is_at_its_place_and_nothing_below() {
        let position =
            |targets: &[&str], target| before_those_below(targets.iter().copied(), target);
        assert_eq!(position(&[], "/data"), 0);
        assert_eq!(position(&["/data", "/var"], "/data"), 2);
        assert_eq!(position(&["/var", "/data/a", "/data/b"], "/data"), 1);
        assert_eq!(position(&["/data", "/data/a"], "/data"), 1);
        assert_eq!(position(&["/database", "/dat"], "/data"), 2);
        assert_eq!(position(&["/data"], "/data/a"), 1);
    }

    #[test]
    fn only_a_tmpfs_is_sealed_later() {
        let fs = |fstype: &str, read_only| {
            let mut fs = FileSystem {
                fstype: fstype.to_owned(),
                ..FileSystem::default()
            };
            fs.flags.read_only = read_only;
            fs
        };
        assert!(is_sealed_later(&fs("tmpfs", true)));
        assert!(!is_sealed_later(&fs("tmpfs", false)));
        assert!(!is_sealed_later(&fs("sysfs", true)));
    }
}
