//! The container's disks: mounts and devices below /dev/runq, which are the monitor's on the host, and
//! the guest's kernel's in the VM.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount, Spec};
use proto::{DiskMount, RootDisk};
use serde_json::{Value, json};

use super::guest_mounts;
use crate::chain::Image;
use crate::disk::{self, Request};
use crate::host::{FileKind, Host};
use crate::options::ROOT_DISK;
use crate::spec::is_bind;
use crate::vmspec;

/// Most disks of a container. The bus has 31 slots (devices/src/pci/root.rs): without the share, console,
/// random numbers and the way to the agent, 11 are left for network interfaces.
const MOST: usize = 16;

/// A disk of the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    request: Request,
    read_only: bool,
    source: Source,
}

/// What it is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A file's path, and what is known of the image in it.
    Image(String, Image),
    /// A block device's path and numbers.
    Block(String, u32, u32),
    /// A block device, of which only the numbers are known.
    Device(u32, u32),
}

/// The paths on the host that the disks of `config` come from.
pub(crate) fn paths(config: &Value, host: &Host) -> BTreeSet<String> {
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let disks = mounts.filter(|mount| {
        let destination = mount["destination"].as_str();
        destination.is_some_and(|path| disk::parse(path).is_some())
    });
    let sources = disks.filter_map(|mount| mount["source"].as_str());
    sources.map(|source| host.resolve(source)).collect()
}

/// Takes the disks out of `config`, which reads as `spec`. Those of mounts come first, in the order of their
/// IDs, as Docker has its volumes in another order at each start; then those of devices, in their order.
///
/// # Errors
/// One line that names the path and what is wrong with it.
pub(super) fn take(config: &mut Value, spec: &Spec, host: &Host) -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    let mounts = spec.mounts().iter().flatten();
    take_from(config.get_mut("mounts"), mounts, |mount, value| {
        let path = mount.destination().to_string_lossy();
        let request = disk::parse(&path)?;
        let disk = request.and_then(|request| volume(request, mount, value, host));
        Some(disk.map(|disk| disks.push(disk)))
    })?;
    disks.sort_by(|one, other| one.request.id.cmp(&other.request.id));
    let linux = spec.linux().as_ref();
    let rules = linux.and_then(|linux| linux.resources().as_ref()?.devices().as_deref());
    let devices = linux.and_then(|linux| linux.devices().as_ref());
    take_from(
        config.pointer_mut("/linux/devices"),
        devices.into_iter().flatten(),
        |node, _| {
            let request = disk::parse(&node.path().to_string_lossy())?;
            let disk = request.and_then(|request| device(request, node, rules.unwrap_or_default()));
            Some(disk.map(|disk| disks.push(disk)))
        },
    )?;
    check(&disks)?;
    Ok(disks)
}

/// Refuses a root on what is none of these disks, or on one that cannot have it.
///
/// # Errors
/// One line that names the variable, the disk, and what to do.
pub(super) fn check_root(root: Option<&RootDisk>, disks: &[Disk]) -> Result<()> {
    let Some(RootDisk { id, .. }) = root else {
        return Ok(());
    };
    let disk = disks.iter().find(|disk| disk.request.id == *id);
    let Some(disk) = disk else {
        bail!(
            "{ROOT_DISK}={id}: the container has no disk with this ID: give it one, as \
             `--volume FILE:/dev/runq/{id}/none`"
        );
    };
    ensure!(
        !disk.read_only,
        "{ROOT_DISK}={id}: the disk is read-only, but the image's files are copied to it: leave out `:ro` (or give \
         a `--device` the rights `rwm`)"
    );
    if let Some(DiskMount { fstype, target }) = &disk.request.mount {
        let target = target.escape_debug();
        bail!(
            "{ROOT_DISK}={id}: the disk is mounted on {target}, too: leave out /{fstype}{target} behind its cache mode"
        );
    }
    Ok(())
}

/// Removes those items from a list, which reads as `typed`, that `take` takes.
fn take_from<'a, T: 'a>(
    list: Option<&mut Value>,
    typed: impl Iterator<Item = &'a T>,
    mut take: impl FnMut(&T, &Value) -> Option<Result<()>>,
) -> Result<()> {
    let Some(items) = list.and_then(Value::as_array_mut) else {
        return Ok(());
    };
    let mut kept = Vec::with_capacity(items.len());
    for (item, typed) in items.drain(..).zip(typed) {
        match take(typed, &item) {
            Some(taken) => taken?,
            None => kept.push(item),
        }
    }
    *items = kept;
    Ok(())
}

fn volume(request: Request, mount: &Mount, value: &Value, host: &Host) -> Result<Disk> {
    let path = mount.destination().to_string_lossy();
    let path = path.escape_debug();
    ensure!(
        is_bind(mount),
        "{path}: a disk is a file or a block device of the host, by --volume or --device, and no mount of type {:?}",
        mount.typ().as_deref().unwrap_or_default()
    );
    let source = host.resolve(value["source"].as_str().unwrap_or_default());
    let name = source.escape_debug();
    let source = match host.files.get(&source) {
        Some(Ok(FileKind::Regular(image))) => Source::Image(source, image.clone()),
        Some(Ok(FileKind::Block { major, minor })) => Source::Block(source, *major, *minor),
        // Not "is a directory": dockerd would take that for a lack of permission, and say so.
        Some(Ok(FileKind::Directory)) => bail!(
            "{path}: the directory {name} is no disk: a file or a block device is allowed (Docker makes a directory \
             where there is nothing: remove it, and make the disk's file)"
        ),
        Some(Ok(FileKind::Other)) => {
            bail!("{path}: {name} is neither a file nor a block device, which a disk has to be")
        }
        Some(Err(error)) => bail!("{path}: {name}: {error}"),
        None => bail!("{path}: {name} is not known"),
    };
    Ok(Disk {
        request,
        read_only: guest_mounts::is_read_only(mount),
        source,
    })
}

fn device(request: Request, node: &LinuxDevice, rules: &[LinuxDeviceCgroup]) -> Result<Disk> {
    let path = node.path().to_string_lossy();
    let path = path.escape_debug();
    ensure!(
        node.typ() == LinuxDeviceType::B,
        "{path}: this is no block device (its type is {:?}), which a disk has to be",
        node.typ().as_str()
    );
    let number = |number: i64| u32::try_from(number).with_context(|| format!("{path}: {number}"));
    Ok(Disk {
        request,
        read_only: !may_write(node, rules),
        source: Source::Device(number(node.major())?, number(node.minor())?),
    })
}

/// Whether the last of the rules that are for this device alone allows writing, as `--device FROM:TO:r` does not.
fn may_write(node: &LinuxDevice, rules: &[LinuxDeviceCgroup]) -> bool {
    let is_its = |rule: &&LinuxDeviceCgroup| {
        rule.allow()
            && rule.typ() == Some(LinuxDeviceType::B)
            && (rule.major(), rule.minor()) == (Some(node.major()), Some(node.minor()))
    };
    let access = rules
        .iter()
        .rfind(is_its)
        .and_then(|rule| rule.access().as_ref());
    access.is_none_or(|access| access.contains('w'))
}

/// What the disks may not be together.
fn check(disks: &[Disk]) -> Result<()> {
    ensure!(
        disks.len() <= MOST,
        "{} disks (/dev/runq/...): a container can have {MOST} at most",
        disks.len()
    );
    let (mut ids, mut targets) = (BTreeSet::new(), BTreeSet::new());
    for Disk { request, .. } in disks {
        let id = request.id.as_str();
        ensure!(
            ids.insert(id),
            "disk ID {id:?}: two disks (/dev/runq/{id}/...) have it: each needs one of its own"
        );
        if let Some(DiskMount { target, .. }) = &request.mount {
            ensure!(
                targets.insert(target.as_str()),
                "mount point {}: two disks have it, disk {id:?} and one before: each needs one of its own",
                target.escape_debug()
            );
        }
    }
    Ok(())
}

impl Disk {
    /// Its serial number, by its place among the disks: an ID may be longer than a serial number can be.
    fn serial(number: usize) -> String {
        format!("runq-{number}")
    }

    /// Where the monitor has it. An image is by its own name beside those that it stands on: none of them has
    /// the same.
    fn place(&self, number: usize) -> String {
        let name = match &self.source {
            Source::Image(_, image) => &image.name,
            Source::Block(..) | Source::Device(..) => DEVICE,
        };
        place(number, name)
    }

    fn device(&self) -> Option<(u32, u32)> {
        match self.source {
            Source::Image(..) => None,
            Source::Block(_, major, minor) | Source::Device(major, minor) => Some((major, minor)),
        }
    }

    /// runc's mounts for it, of which the last ones are what it stands on.
    fn mounts(&self, number: usize) -> Vec<Value> {
        let access = self.read_only.then_some("ro");
        let bind = |name: &str, source: &str, options: &[&str]| {
            let all = ["bind", "rprivate", "nosuid", "noexec"].iter();
            let options: Vec<_> = all.chain(options).collect();
            let destination = place(number, name);
            json!({"destination": destination, "type": "bind", "source": source, "options": options})
        };
        let options = |more| Vec::from_iter(access.into_iter().chain(more));
        match &self.source {
            Source::Image(source, image) => {
                let top = bind(&image.name, source, &options(Some("nodev")));
                let below = image.backing.iter();
                let below = below.map(|file| bind(&file.name, &file.path, &["ro", "nodev"]));
                std::iter::once(top).chain(below).collect()
            }
            Source::Block(source, ..) => vec![bind(DEVICE, source, &options(None))],
            Source::Device(..) => Vec::new(),
        }
    }
}

/// What a block device is called in its disk's directory.
const DEVICE: &str = "device";

/// A path in a disk's directory.
fn place(number: usize, name: &str) -> String {
    format!("{}/{number}/{name}", vmspec::DISKS)
}

/// As the monitor opens them.
pub(super) fn of_monitor(disks: &[Disk]) -> Vec<vmspec::Disk> {
    let disks = disks.iter().enumerate().map(|(number, disk)| {
        let source = match &disk.source {
            Source::Image(path, _) | Source::Block(path, ..) => path.clone(),
            Source::Device(major, minor) => format!("block device {major}:{minor}"),
        };
        vmspec::Disk {
            name: format!("{} ({source})", disk.request.id),
            path: disk.place(number).into(),
            serial: Disk::serial(number),
            cache: disk.request.cache,
            read_only: disk.read_only,
        }
    });
    disks.collect()
}

/// As init makes nodes and links for them, and mounts them.
pub(super) fn of_guest(disks: &[Disk]) -> Vec<proto::Disk> {
    let disks = disks.iter().enumerate().map(|(number, disk)| proto::Disk {
        id: disk.request.id.clone(),
        serial: Disk::serial(number),
        read_only: disk.read_only,
        mount: disk.request.mount.clone(),
    });
    disks.collect()
}

/// runc's mounts that show files and devices of the host to the monitor; its device nodes have to be of use.
pub(super) fn mounts(disks: &[Disk]) -> impl Iterator<Item = Value> {
    let disks = disks.iter().enumerate();
    disks.flat_map(|(number, disk)| disk.mounts(number))
}

/// runc's device nodes for the monitor.
pub(super) fn nodes(disks: &[Disk]) -> impl Iterator<Item = Value> {
    disks.iter().enumerate().filter_map(|(number, disk)| {
        let Source::Device(major, minor) = disk.source else {
            return None;
        };
        Some(json!({
            "path": disk.place(number),
            "type": "b",
            "major": major,
            "minor": minor,
            "fileMode": 0o600,
            "uid": 0,
            "gid": 0,
        }))
    })
}

/// What the monitor may do with block devices.
pub(super) fn device_rules(disks: &[Disk]) -> impl Iterator<Item = Value> {
    disks.iter().filter_map(|disk| {
        let (major, minor) = disk.device()?;
        let access = if disk.read_only { "rm" } else { "rwm" };
        Some(json!({
            "allow": true, "type": "b", "major": major, "minor": minor, "access": access,
        }))
    })
}
