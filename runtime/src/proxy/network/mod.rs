//! The container's network interfaces: out of its namespace, into the VM.
//!
//! ```text
//! before:  host's bridge ── veth ── eth0: MAC, addresses, routes
//! after:   host's bridge ── veth ── eth0 ── macvtap: MAC ── virtio-net ── the guest's eth0: MAC, addresses, routes
//! ```
//!
//! `eth0` itself stays, without addresses and with another MAC address, because a macvtap lies on it.
//! All of it goes with the namespace.

mod macvtap;

use anyhow::{Context, Result, bail};
use netlink::{Link, Netlink};
use proto::{Address, Interface, Route};
use vmm::network::net;

/// What a macvtap cannot lie on, as the kernel calls it.
const NO_ETHERNET: [&str; 5] = ["ipvlan", "ipvtap", "macvtap", "tun", "wireguard"];

/// The container's interfaces: what init is told of them, and their devices.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) devices: Vec<net::Config>,
}

/// Takes the interfaces of this process's network namespace, each with a pair of queues for each of
/// the VM's processors. Needs CAP_NET_ADMIN and CAP_MKNOD.
///
/// # Errors
/// Names the interface and what to do.
pub(crate) fn take(cpus: u32) -> Result<Taken> {
    let mut netlink = Netlink::open().context("rtnetlink socket")?;
    let links = usable(netlink.links()?)?;
    let mut taken = Taken::default();
    if links.is_empty() {
        return Ok(taken);
    }
    // All before the first address is removed, as the routes over it go with it.
    let (addresses, routes) = (netlink.addresses()?, netlink.routes()?);
    for link in links {
        let interface = describe(&link, &addresses, &routes);
        let device = macvtap::add(&mut netlink, &link, &interface, cpus)
            .with_context(|| format!("network interface {}", link.name))?;
        taken.interfaces.push(interface);
        taken.devices.push(device);
    }
    Ok(taken)
}

/// The interfaces that are the container's: every one that is up, but for the loopback.
fn usable(links: Vec<Link>) -> Result<Vec<Link>> {
    let links: Vec<_> = links
        .into_iter()
        .filter(|link| link.up && !link.loopback)
        .collect();
    for link in &links {
        let kind = link.kind.as_deref().unwrap_or_default();
        if NO_ETHERNET.contains(&kind) || link.mac.is_none() {
            bail!(
                "network interface {}: of kind {kind:?}, which is not supported: use a bridge or \
                 macvlan network",
                link.name
            );
        }
    }
    Ok(links)
}

/// What the guest gets of an interface. Routes that lead over none come with the first one.
fn describe(link: &Link, addresses: &[(u32, Address)], routes: &[(u32, Route)]) -> Interface {
    fn of<T: Clone>(link: &Link, all: &[(u32, T)]) -> Vec<T> {
        let own = all.iter().filter(|(index, _)| *index == link.index);
        own.map(|(_, one)| one.clone()).collect()
    }
    let mut routes = of(link, routes);
    // A gateway is reached by a route without one.
    routes.sort_by_key(|route| route.gateway.is_some());
    Interface {
        mac: link.mac.unwrap_or_default(),
        name: link.name.clone(),
        mtu: link.mtu,
        addresses: of(link, addresses),
        routes,
    }
}
