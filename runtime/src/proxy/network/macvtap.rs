//! A macvtap on an interface: what the guest sends and receives, with the interface's own MAC address.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use netlink::{Link, LinkChange, Netlink};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use proto::{Interface, MacAddress};
use runtime::vmspec;
use vmm::network::{self, MAX_QUEUE_PAIRS, Tap, net};

use super::routes;

/// Where the macvtap's node is for a moment, in the container's own /dev.
const NODE: &str = "/dev/macvtap";

/// Puts a macvtap in bridge mode on `link`, which gives up its addresses for it, but not its routes.
pub(super) fn add(
    netlink: &mut Netlink,
    link: &Link,
    interface: &Interface,
    cpus: u32,
) -> Result<net::Config> {
    routes::keep(netlink, link.index, interface)?;
    for address in &interface.addresses {
        match netlink.delete_address(link.index, address) {
            // With the first address of a network go the others of it.
            Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => {}
            result => result?,
        }
    }
    // No two interfaces of a host may have one MAC address.
    let replaced = LinkChange {
        mac: Some(replacement(interface.mac)),
        no_ipv6_address: true,
        ..LinkChange::default()
    };
    netlink.set_link(link.index, &replaced)?;

    let name = format!("macvtap{}", link.index);
    netlink
        .add_macvtap(link.index, &name, interface.mac, interface.mtu)
        .context("the kernel makes no macvtap on it (try `modprobe macvtap` on the host)")?;
    let macvtap = netlink.links()?.into_iter().find(|link| link.name == name);
    let macvtap = macvtap.with_context(|| format!("{name} is not there"))?;
    let up = LinkChange {
        up: Some(true),
        // Otherwise it drops what the guest's IPv6 needs (neighbour discovery).
        all_multicast: Some(true),
        no_ipv6_address: true,
        ..LinkChange::default()
    };
    netlink.set_link(macvtap.index, &up).map_err(|error| {
        let mac = interface.mac;
        match error.errno() {
            Some(Errno::EBUSY) => {
                anyhow!(
                    "its MAC address {mac} is in use on this host: choose another by --mac-address"
                )
            }
            _ => error.into(),
        }
    })?;
    device(link, &name, interface, cpus)
}

/// A MAC address for the interface itself: the macvtap's, with one bit inverted that no manufacturer
/// uses, and the one set that says so.
fn replacement(mac: MacAddress) -> MacAddress {
    let [first, rest @ ..] = mac.0;
    let [a, b, c, d, e] = rest;
    MacAddress([(first | 0x02) ^ 0x04, a, b, c, d, e])
}

fn device(link: &Link, macvtap: &str, interface: &Interface, cpus: u32) -> Result<net::Config> {
    let pairs = u16::try_from(cpus).unwrap_or(u16::MAX).min(MAX_QUEUE_PAIRS);
    let queues = open(macvtap, pairs)?;
    let Ok(mtu) = u16::try_from(interface.mtu) else {
        bail!("an MTU of {}: virtio knows 65535 at most", interface.mtu);
    };
    Ok(net::Config {
        name: link.name.clone(),
        mac: interface.mac.0,
        mtu,
        vhost: network::open_vhost(queues.len()),
        queues,
    })
}

/// Opens its device by a node that is there no longer than that.
fn open(macvtap: &str, pairs: u16) -> Result<Vec<Tap>> {
    let (major, minor) = numbers(macvtap)?;
    let node = Path::new(NODE);
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let number = makedev(major, minor);
    // As on any architecture, for filters: not all have mknod(2) and unlink(2).
    mknodat(AT_FDCWD, node, SFlag::S_IFCHR, mode, number).context("make its device node")?;
    let opened = Tap::macvtap(node, pairs);
    unlinkat(AT_FDCWD, node, UnlinkatFlags::NoRemoveDir).context("remove its device node")?;
    opened.with_context(|| format!("open its device {major}:{minor}"))
}

/// Major and minor number of the macvtap's device. They are in no message of the kernel's.
fn numbers(macvtap: &str) -> Result<(u64, u64)> {
    let folder = PathBuf::from(format!("{}/class/net/{macvtap}/macvtap", vmspec::SYS));
    let find = || -> std::io::Result<String> {
        let tap = fs::read_dir(&folder)?.next().ok_or(ErrorKind::NotFound)??;
        fs::read_to_string(tap.path().join("dev"))
    };
    let text = find().with_context(|| folder.display().to_string())?;
    parse(&text).with_context(|| format!("{}: {text:?}: no device number", folder.display()))
}

/// `MAJOR:MINOR`, as sysfs has it.
fn parse(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_is_locally_administered_and_another() {
        for (mac, expected) in [
            ("02:42:ac:11:00:02", "06:42:ac:11:00:02"),
            ("00:16:3e:00:00:01", "06:16:3e:00:00:01"),
            ("06:42:ac:11:00:02", "02:42:ac:11:00:02"),
        ] {
            let replacement = replacement(mac.parse().unwrap());
            assert_eq!(replacement.to_string(), expected);
            assert!(replacement.is_unicast());
        }
    }

    #[test]
    fn device_numbers_are_read() {
        assert_eq!(parse("245:1\n"), Some((245, 1)));
        assert_eq!(parse("245"), None);
        assert_eq!(parse("a:b"), None);
    }
}
