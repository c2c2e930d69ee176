//! The guest's disks, as the command finds them: nodes, links to them, and what is mounted of them.
//!
//! Nothing like udev runs in the guest, so init does once what udev would do: partitions that the
//! command makes later have no nodes. Who may use a disk is said by the mode of its node alone: the
//! command's control group, which is of version 2, has no filter of devices.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use proto::{Device, Disk, DiskMount};
use rustix::mount::MountAttrFlags;

use crate::mounts::{SYSFS, UNKNOWN, create_directory};
use crate::tree::Tree;
use crate::{devices, modules};

/// What the names of virtio's disks begin with (admin-guide/devices.txt).
const NAME: &str = "vd";
/// Where the command finds its disks by their IDs.
const BY_ID: &str = "/dev/disk/by-runq-id";
/// Owner and mode of all disks, as udev has them (50-udev-default.rules). The group disk has this
/// number everywhere.
const MODE: u32 = 0o660;
const GROUP: u32 = 6;

/// A disk that the kernel has found.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Its name, such as `vda`.
    name: String,
    serial: String,
    /// Its node and those of its partitions.
    nodes: Vec<Device>,
}

/// What the command's /dev is to have.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    nodes: Vec<Device>,
    /// The ID of a disk, and the name of its node.
    links: Vec<(String, String)>,
}

/// The file system of a disk, which has no place yet.
pub(crate) struct Mounted<'a> {
    id: &'a str,
    /// Where its place is.
    pub(crate) target: &'a str,
    tree: Tree,
}

impl Mounted<'_> {
    /// Mounts it there.
    pub(crate) fn attach(self) -> Result<()> {
        let attached = self.tree.attach(self.target);
        attached.with_context(|| format!("disk {}", self.id))
    }
}

/// Finds all disks, and mounts what is wanted of these, to be attached later, by file systems of the kernel or of its
/// modules.
///
/// Call it while init's /proc, /sys and /dev are there.
pub(crate) fn take<'a>(
    disks: &'a [Disk],
    modules: Option<&Tree>,
) -> Result<(Disks, Vec<Mounted<'a>>)> {
    let blocks = find(&Path::new(SYSFS).join("block"))?;
    let (mut links, mut mounted) = (Vec::new(), Vec::new());
    for disk in disks {
        let block = named(disk, &blocks)?;
        if let Some(wanted) = &disk.mount {
            mounted.push(Mounted {
                id: &disk.id,
                target: &wanted.target,
                tree: mount(disk, wanted, &block.name, modules)?,
            });
        }
        links.push((disk.id.clone(), block.name.clone()));
    }
    let nodes = blocks.into_iter().flat_map(|block| block.nodes).collect();
    Ok((Disks { nodes, links }, mounted))
}

impl Disks {
    /// The node, in init's /dev, of the disk with this ID.
    pub(crate) fn node(&self, id: &str) -> Result<String> {
        let mut links = self.links.iter();
        let found = links.find_map(|(named, name)| (named == id).then(|| format!("/dev/{name}")));
        found.with_context(|| format!("disk {id}: it is not among the container's disks"))
    }

    /// Makes nodes and links, in the command's root.
    pub(crate) fn publish(&self) -> Result<()> {
        devices::create(&self.nodes)?;
        if !self.links.is_empty() {
            create_directory(BY_ID)?;
        }
        for (id, name) in &self.links {
            link(&format!("../../{name}"), &format!("{BY_ID}/{id}"))?;
        }
        Ok(())
    }
}

/// A link, which may be there already: /dev may be a volume.
fn link(to: &str, path: &str) -> Result<()> {
    match symlink(to, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::read_link(path)
            .ok()
            .filter(|there| there == Path::new(to))
            .map(drop)
            .ok_or(error),
        made => made,
    }
    .with_context(|| format!("link {path} to {to}"))
}

/// The disks in /sys/block, which is not there if the kernel has no block devices.
fn find(folder: &Path) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for name in names(folder, NAME)? {
        let path = folder.join(&name);
        let mut nodes = vec![node(&path, &name)?];
        for partition in names(&path, &name)? {
            nodes.push(node(&path.join(&partition), &partition)?);
        }
        // A device may have none.
        let serial = fs::read_to_string(path.join("serial")).unwrap_or_default();
        blocks.push(Block {
            name,
            serial: serial.trim_end().to_owned(),
            nodes,
        });
    }
    Ok(blocks)
}

/// The names in a folder that begin like this, in order.
fn names(folder: &Path, begin: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(begin)).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    Ok(names)
}

/// The node of a device, whose folder in sysfs has its numbers.
pub(crate) fn node(folder: &Path, name: &str) -> Result<Device> {
    let path = folder.join("dev");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let numbers = text.trim_end().split_once(':');
    let numbers =
        numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) =
        numbers.with_context(|| format!("{}: {text:?} is no device number", path.display()))?;
    Ok(Device {
        path: format!("/dev/{name}"),
        block: true,
        major,
        minor,
        mode: MODE,
        uid: 0,
        gid: GROUP,
    })
}

fn named<'a>(disk: &Disk, blocks: &'a [Block]) -> Result<&'a Block> {
    let mut blocks = blocks.iter();
    let found = blocks.find(|block| block.serial == disk.serial);
    found.with_context(|| {
        format!(
            "disk {}: the guest's kernel has found no disk with the serial number {} (it needs virtio_blk)",
            disk.id, disk.serial
        )
    })
}

fn mount(disk: &Disk, wanted: &DiskMount, name: &str, modules: Option<&Tree>) -> Result<Tree> {
    let DiskMount { fstype, target } = wanted;
    let what = format!("disk {}: mount {fstype} on {target}", disk.id);
    modules::provide_file_system(fstype, modules).with_context(|| what.clone())?;
    let mut options = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if disk.read_only {
        options |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    Tree::of_device(fstype, &format!("/dev/{name}"), options).map_err(|errno| {
        let hint = hint(errno, fstype);
        anyhow!(errno).context(format!("{what}{hint}"))
    })
}

/// What the user can do about it.
pub(crate) fn hint(errno: Errno, fstype: &str) -> String {
    match errno {
        Errno::EINVAL => format!(
            " (there is no such file system on the disk: name the one that it has, or make one on the host \
             by `mkfs.{fstype}`)"
        ),
        Errno::ENODEV => UNKNOWN.into(),
        Errno::EROFS | Errno::EACCES => {
            " (it was not unmounted, and cannot be repaired through a read-only disk: use it once without `:ro`)"
                .into()
        }
        Errno::EUCLEAN | Errno::EIO => {
            format!(" (the file system is damaged: check it on the host by `fsck.{fstype}`)")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
#[path = "disks_test.rs"]
mod tests;
