//! What becomes of the network while the command runs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context, Result};
use netlink::Netlink;
use nix::errno::Errno;
use proto::{MacAddress, Plug, Route};

use crate::network;

/// In a sysfs: has the kernel look for functions that are new on the bus.
const RESCAN: &str = "bus/pci/rescan";
/// Where the kernel shows its network interfaces.
const INTERFACES: &str = "class/net";

/// Does what one message says, however long the kernel takes. `sysfs` is where init has mounted its
/// own: a test must never pass the machine's, whose devices would go.
pub(crate) fn change(change: &Plug, sysfs: &Path) -> Result<()> {
    let mut netlink = Netlink::open().context("open a netlink socket")?;
    match change {
        Plug::Add(interface) => {
            // The drivers have probed what is new when this returns.
            order(&sysfs.join(RESCAN))?;
            network::connect(&mut netlink, slice::from_ref(interface))
        }
        Plug::Remove(mac) => remove(&mut netlink, *mac, sysfs),
        Plug::Routes {
            mac,
            added,
            removed,
        } => change_routes(&mut netlink, *mac, added, removed),
    }
}

/// Has the driver let go of an interface's device, and the kernel forget it.
fn remove(netlink: &mut Netlink, mac: MacAddress, sysfs: &Path) -> Result<()> {
    let links = netlink.links()?;
    let same = links.iter().filter(|link| link.mac == Some(mac));
    // Others may have taken the address over, a bridge of its first member: they have no device.
    let mut files = same.map(|link| function_file(sysfs, &link.name));
    let file = files
        .find(|file| file.exists())
        .with_context(|| format!("no network device has the address {mac}"))?;
    order(&file)
}

/// Writes what a file that is a command takes; one that is missing is not made.
fn order(file: &Path) -> Result<()> {
    let opened = File::options().write(true).open(file);
    opened
        .and_then(|mut opened| opened.write_all(b"1"))
        .with_context(|| file.display().to_string())
}

/// The file by which a network device's PCI function is removed: the virtio device is below it.
fn function_file(sysfs: &Path, name: &str) -> PathBuf {
    sysfs.join(INTERFACES).join(name).join("device/../remove")
}

fn change_routes(
    netlink: &mut Netlink,
    mac: MacAddress,
    added: &[Route],
    removed: &[Route],
) -> Result<()> {
    let links = netlink.links()?;
    let link = links
        .iter()
        .find(|link| link.mac == Some(mac))
        .with_context(|| format!("no network interface has the address {mac}"))?;
    for route in removed {
        match netlink.delete_route(link.index, route) {
            // It went with another one, or with an address.
            Err(error) if error.errno() == Some(Errno::ESRCH) => {}
            result => result.with_context(|| link.name.clone())?,
        }
    }
    network::add_routes(netlink, link.index, added).with_context(|| link.name.clone())
}
