//! The guest's network: the container's interfaces, made of the devices that the guest has.
//!
//! Init and the command share one network namespace, the kernel's first.

use std::fs;

use anyhow::{Context, Result};
use netlink::{Link, LinkChange, Netlink, PacketFilter};
use nix::errno::Errno;
use proto::{Address, Interface, PacketRule, Route};

use crate::{console, sysctl};

/// The loopback interface's number in every namespace, LOOPBACK_IFINDEX.
const LOOPBACK: u32 = 1;
/// What a device is called whose name another one gets; the kernel puts a number there.
const TEMPORARY_NAME: &str = "runq%d";

/// Most connections that are tracked, as rules that translate addresses need: the kernel's own limit
/// for a machine of 4 GiB. For a guest of 512 MiB it is 4096, which a busy server exceeds, and packets
/// beyond it are dropped (nf_conntrack_init_start).
const CONNECTIONS: &str = "262144";
const CONNECTIONS_SETTING: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Sets up the loopback interface and those that are listed, with their addresses and routes.
///
/// A kernel without a network is fine as long as no interface is listed.
pub(crate) fn set_up(interfaces: &[Interface]) -> Result<()> {
    let mut netlink = match Netlink::open() {
        Err(error) if interfaces.is_empty() && error.raw_os_error() == Some(libc::ENOSYS) => {
            return Ok(());
        }
        result => result.context("open a netlink socket (the kernel needs CONFIG_NET)")?,
    };
    netlink
        .set_link(LOOPBACK, &switched(true))
        .context("set up the loopback interface")?;
    if interfaces.is_empty() {
        return Ok(());
    }
    connect(&mut netlink, interfaces)
}

/// Sets up these interfaces, and leaves all others as they are, but for a name that is needed.
pub(crate) fn connect(netlink: &mut Netlink, interfaces: &[Interface]) -> Result<()> {
    let links = netlink.links()?;
    let devices = devices(&links, interfaces)?;
    for (link, name) in renamings(&links, &devices) {
        rename(netlink, link, name).with_context(|| format!("rename {}", link.name))?;
    }
    for (link, interface) in &devices {
        bring_up(netlink, link.index, interface).with_context(|| of(interface))?;
    }
    // After all addresses: a gateway may be reached over another interface.
    for (link, interface) in &devices {
        add_routes(netlink, link.index, &interface.routes).with_context(|| of(interface))?;
    }
    Ok(())
}

/// Adds the packet filter's rules; whether there are any then. The command can do without them: what
/// the kernel does not take is told on the console.
pub(crate) fn filter(rules: &[PacketRule]) -> bool {
    if rules.is_empty() {
        return false;
    }
    let added = PacketFilter::open()
        .context("open a netfilter socket")
        .and_then(|mut filter| Ok(filter.add(rules)?));
    if let Err(error) = &added {
        console::line(format_args!(
            "{error:#} (the kernel needs CONFIG_NF_TABLES, CONFIG_NFT_COMPAT and what the rules use)"
        ));
    }
    if added.is_ok()
        && let Err(error) = fs::write(CONNECTIONS_SETTING, CONNECTIONS)
    {
        // A kernel without connection tracking has none to limit.
        console::debug(format_args!("{CONNECTIONS_SETTING}: {error}"));
    }
    added.is_ok()
}

/// Names the interface that an error is of.
fn of(interface: &Interface) -> String {
    format!("network interface {}", interface.name)
}

/// Each interface with its device.
fn devices<'a>(
    links: &'a [Link],
    interfaces: &'a [Interface],
) -> Result<Vec<(&'a Link, &'a Interface)>> {
    let mut free: Vec<&Link> = links.iter().filter(|link| !link.loopback).collect();
    let find = |interface: &'a Interface| {
        let is_it = |link: &&Link| link.mac == Some(interface.mac);
        let at = free.iter().position(is_it).with_context(|| {
            let (of, mac) = (of(interface), interface.mac);
            format!(
                "{of}: no network device has the address {mac} (the kernel or /modules needs virtio_net)"
            )
        })?;
        Ok((free.remove(at), interface))
    };
    interfaces.iter().map(find).collect()
}

/// The names to give, in an order in which each is free when its turn comes.
fn renamings<'a>(
    links: &'a [Link],
    devices: &[(&'a Link, &'a Interface)],
) -> Vec<(&'a Link, &'a str)> {
    let (stay, change): (Vec<_>, Vec<_>) = devices
        .iter()
        .map(|&(link, interface)| (link, interface.name.as_str()))
        .partition(|(link, name)| link.name == *name);
    let in_the_way = links.iter().filter(|link| {
        let stays = stay.iter().any(|(other, _)| other.index == link.index);
        !stays && change.iter().any(|(_, name)| link.name == *name)
    });
    in_the_way
        .map(|link| (link, TEMPORARY_NAME))
        .chain(change.iter().copied())
        .collect()
}

fn rename(netlink: &mut Netlink, link: &Link, name: &str) -> Result<()> {
    if link.up {
        netlink.set_link(link.index, &switched(false))?;
    }
    let change = LinkChange {
        name: Some(name.to_owned()),
        ..LinkChange::default()
    };
    Ok(netlink.set_link(link.index, &change)?)
}

/// Sets the interface up, with its addresses.
fn bring_up(netlink: &mut Netlink, index: u32, interface: &Interface) -> Result<()> {
    sysctl::write(&settings(interface))?;
    let change = LinkChange {
        mtu: (interface.mtu != 0).then_some(interface.mtu),
        ..switched(true)
    };
    netlink.set_link(index, &change)?;
    for address in in_order(&interface.addresses) {
        match netlink.add_address(index, address) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                return Err(error).context("the kernel needs CONFIG_INET, or CONFIG_IPV6");
            }
            result => result?,
        }
    }
    Ok(())
}

/// What must be set before an interface is up: it has IPv6 if the container has, and its own
/// link-local address is not looked for on the network first, which would take a second.
fn settings(interface: &Interface) -> Vec<(String, String)> {
    let has_ipv6 = interface.addresses.iter().any(is_ipv6);
    let setting = |name: &str, value: bool| {
        // With slashes: an interface's name may have dots.
        let name = format!("net/ipv6/conf/{}/{name}", interface.name);
        (name, u8::from(value).to_string())
    };
    vec![
        setting("disable_ipv6", !has_ipv6),
        setting("accept_dad", false),
    ]
}

fn is_ipv6(address: &Address) -> bool {
    address.address.is_ipv6()
}

/// The order in which to add addresses: the kernel puts an IPv4 address behind the others, but an
/// IPv6 one before its equals (ipv6_link_dev_addr).
fn in_order(addresses: &[Address]) -> impl Iterator<Item = &Address> {
    let ipv4 = addresses.iter().filter(|address| !is_ipv6(address));
    let ipv6 = addresses.iter().rev().filter(|address| is_ipv6(address));
    ipv4.chain(ipv6)
}

/// Adds routes over the interface with this index; one that is there already stays.
pub(crate) fn add_routes(netlink: &mut Netlink, index: u32, routes: &[Route]) -> Result<()> {
    for route in routes {
        match netlink.add_route(index, route) {
            // The kernel has made it with an address.
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            result => result?,
        }
    }
    Ok(())
}

fn switched(up: bool) -> LinkChange {
    LinkChange {
        up: Some(up),
        ..LinkChange::default()
    }
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;
