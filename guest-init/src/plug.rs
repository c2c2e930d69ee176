//! What becomes of the network while the command runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context, Result};
use netlink::Netlink;
use nix::errno::Errno;
use proto::{MacAddress, Plug, Route};

use crate::network;

/// Has the kernel look for functions that are new on the bus, by a file of init's own sysfs.
const RESCAN: &str = "/sys/bus/pci/rescan";
/// Where the kernel shows its network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Does what one message says, however long the kernel takes.
pub(crate) fn change(change: &Plug) -> Result<()> {
    let mut netlink = Netlink::open().context("open a netlink socket")?;
    match change {
        Plug::Add(interface) => {
            // The drivers have probed what is new when this returns.
            fs::write(RESCAN, "1").context(RESCAN)?;
            network::connect(&mut netlink, slice::from_ref(interface))
        }
        Plug::Remove(mac) => remove(&mut netlink, *mac),
        Plug::Routes {
            mac,
            added,
            removed,
        } => change_routes(&mut netlink, *mac, added, removed),
    }
}

/// Has the driver let go of an interface's device, and the kernel forget it.
fn remove(netlink: &mut Netlink, mac: MacAddress) -> Result<()> {
    let links = netlink.links()?;
    let same = links.iter().filter(|link| link.mac == Some(mac));
    // Others may have taken the address over, a bridge of its first member: they have no device.
    let mut files = same.map(|link| function_file(Path::new(INTERFACES), &link.name));
    let file = files
        .find(|file| file.exists())
        .with_context(|| format!("no network device has the address {mac}"))?;
    fs::write(&file, "1").with_context(|| file.display().to_string())
}

/// The file by which a network device's PCI function is removed: the virtio device is below it.
fn function_file(interfaces: &Path, name: &str) -> PathBuf {
    interfaces.join(name).join("device/../remove")
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
