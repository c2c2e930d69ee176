//! The container's network interfaces: out of its namespace, into the VM.
//!
//! ```text
//! before:  host's bridge ── veth ── eth0: MAC, addresses, routes
//! after:   host's bridge ── veth ── eth0 ── macvtap: MAC ── virtio-net ── the guest's eth0: MAC, addresses, routes
//! ```
//!
//! `eth0` itself stays, without addresses and with another MAC address, because a macvtap lies on it.
//! So do its routes, for Docker, which looks at them when it changes the default one. All of it goes
//! with the namespace.

mod macvtap;
mod routes;

use std::fs;

use anyhow::{Context, Result, bail};
use netlink::{Link, Netlink, PacketFilter};
use proto::{Address, Interface, PacketRule, Route};
use tracing::{debug, warn};
use vmm::network::net;

pub(crate) use routes::KEPT;

/// What a macvtap cannot lie on, as the kernel calls it.
const NO_ETHERNET: [&str; 4] = ["ipvlan", "ipvtap", "tun", "wireguard"];

/// A setting that a new namespace has from the host, and thus every container: Docker switches it on.
const FORWARDING: &str = "net.ipv4.ip_forward";

/// The port of DNS (RFC 1035, 4.2).
const DNS: u16 = 53;

/// Where a rule comes right after the one for the `local` table (`FR_ACT_TO_TBL` of priority 0).
const AFTER_LOCAL: u32 = 1;

/// The container's network: what init is told of it, and the interfaces' devices.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) interfaces: Vec<Interface>,
    /// The interfaces' numbers in the namespace.
    pub(crate) indexes: Vec<u32>,
    pub(crate) packet_rules: Vec<PacketRule>,
    pub(crate) devices: Vec<net::Config>,
}

/// Takes the interfaces of this process's network namespace, each with a pair of queues for each of
/// the VM's processors. Needs CAP_NET_ADMIN and CAP_MKNOD.
///
/// # Errors
/// Names the interface and what to do.
pub(crate) fn take(cpus: u32) -> Result<Taken> {
    let mut netlink = Netlink::open().context("rtnetlink socket")?;
    let links: Vec<_> = netlink.links()?.into_iter().filter(is_containers).collect();
    // All, before the first is changed.
    links.iter().try_for_each(check)?;
    let mut taken = Taken {
        settings: forwarding().into_iter().collect(),
        ..Taken::default()
    };
    if links.is_empty() {
        return Ok(taken);
    }
    taken.packet_rules = packet_rules();
    // All before the first address is removed, as the routes over it go with it.
    let (addresses, routes) = (netlink.addresses()?, netlink.routes()?);
    for link in links {
        let interface = describe(&link, &addresses, &routes);
        let device = take_one(&mut netlink, &link, &interface, cpus)?;
        taken.indexes.push(link.index);
        taken.interfaces.push(interface);
        taken.devices.push(device);
    }
    block_dns(&mut netlink);
    if let Some(first) = taken.interfaces.first_mut() {
        let nowhere = routes.into_iter().filter(|(_, route)| leads_nowhere(route));
        first.routes.extend(nowhere.map(|(_, route)| route));
    }
    Ok(taken)
}

/// The setting as it is in this namespace.
fn forwarding() -> Option<(String, String)> {
    let path = format!("/proc/sys/{}", FORWARDING.replace('.', "/"));
    let value = fs::read_to_string(path).ok()?;
    Some((FORWARDING.to_owned(), value.trim().to_owned()))
}

/// The packet filter's rules in this namespace: Docker's for its resolver, and Swarm's for published
/// ports. The container can do without those that cannot be had: a host may do with other filters.
fn packet_rules() -> Vec<PacketRule> {
    let rules = PacketFilter::open()
        .context("netfilter socket")
        .and_then(|mut filter| Ok(filter.rules()?));
    rules.unwrap_or_else(|error| {
        debug!("{error:#}");
        Vec::new()
    })
}

/// Whether packets are dropped or refused, for which there is no interface (`RTN_BLACKHOLE` and on).
fn leads_nowhere(route: &Route) -> bool {
    route.kind >= 6
}

/// Takes one interface, which becomes a device of the VM; the namespace keeps its routes.
///
/// # Errors
/// As [`take`].
pub(crate) fn take_one(
    netlink: &mut Netlink,
    link: &Link,
    interface: &Interface,
    cpus: u32,
) -> Result<net::Config> {
    check(link)?;
    macvtap::add(netlink, link, interface, cpus)
        .with_context(|| format!("network interface {}", link.name))
}

/// Docker's resolver sends the queries that it cannot answer from this namespace. By the routes that
/// stay it would wait for answers that never come: so it fails at once, and init asks the servers.
pub(crate) fn block_dns(netlink: &mut Netlink) {
    if let Err(error) = netlink.block_port(AFTER_LOCAL, DNS) {
        warn!("names outside of the container's networks may be slow: {error}");
    }
}

/// Whether an interface is the container's: every one that is up, but for the loopback.
pub(crate) fn is_containers(link: &Link) -> bool {
    link.up && !link.loopback
}

fn check(link: &Link) -> Result<()> {
    let kind = link.kind.as_deref().unwrap_or_default();
    if kind == "macvtap" {
        // Of ours, as a rule: the addresses went with the container, and nobody knows them any more.
        bail!(
            "network interface {}: of a container that had this network namespace before: make a \
             new namespace for each container",
            link.name
        );
    }
    if NO_ETHERNET.contains(&kind) || link.mac.is_none() {
        bail!(
            "network interface {}: of kind {kind:?}, which is not supported: use a bridge or \
             macvlan network",
            link.name
        );
    }
    Ok(())
}

/// What the guest gets of an interface.
pub(crate) fn describe(
    link: &Link,
    addresses: &[(u32, Address)],
    routes: &[(u32, Route)],
) -> Interface {
    let addresses = addresses.iter().filter(|(index, _)| *index == link.index);
    let routes = routes.iter().filter(|(index, _)| *index == link.index);
    let routes = routes.filter(|(_, route)| !leads_nowhere(route));
    let mut routes: Vec<_> = routes.map(|(_, route)| route.clone()).collect();
    // A gateway is reached by a route without one.
    routes.sort_by_key(|route| route.gateway.is_some());
    Interface {
        mac: link.mac.unwrap_or_default(),
        name: link.name.clone(),
        mtu: link.mtu,
        addresses: addresses.map(|(_, address)| address.clone()).collect(),
        routes,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn link(index: u32, kind: &str) -> Link {
        Link {
            index,
            name: format!("if{index}"),
            kind: Some(kind.to_owned()),
            mac: Some("02:42:0a:00:00:02".parse().unwrap()),
            mtu: 1500,
            up: true,
            loopback: false,
        }
    }

    #[test]
    fn what_is_up_is_the_containers() {
        let mut links = vec![link(1, "veth"), link(2, "macvlan"), link(3, "sit")];
        links[2].up = false;
        let mut lo = link(4, "");
        lo.loopback = true;
        links.push(lo);
        links.retain(is_containers);
        let names: Vec<_> = links.into_iter().map(|link| link.name).collect();
        assert_eq!(names, ["if1", "if2"]);
    }

    #[test]
    fn what_has_no_ethernet_is_refused_by_name() {
        check(&link(2, "veth")).unwrap();
        let error = check(&link(7, "ipvlan")).unwrap_err();
        let expected =
            "network interface if7: of kind \"ipvlan\", which is not supported: use a bridge";
        assert!(error.to_string().starts_with(expected), "{error}");
        let error = check(&link(7, "macvtap")).unwrap_err().to_string();
        assert!(error.contains("a new namespace for each"), "{error}");
        let mut tunnel = link(5, "gre");
        tunnel.mac = None;
        assert!(check(&tunnel).is_err());
    }

    #[test]
    fn an_interface_has_its_own_addresses_and_routes_gateways_last() {
        let address = |text: &str| Address {
            address: text.parse().unwrap(),
            prefix: 24,
            peer: None,
            broadcast: None,
            scope: 0,
        };
        let route = |destination: &str, gateway: Option<&str>, kind| Route {
            destination: (destination.parse::<IpAddr>().unwrap(), 24),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            source: None,
            metric: 0,
            table: 254,
            scope: 0,
            protocol: 4,
            kind,
            on_link: false,
            mtu: 0,
        };
        let addresses = [(2, address("10.0.0.2")), (3, address("10.0.1.2"))];
        let routes = [
            (2, route("10.9.0.0", Some("10.0.0.1"), 1)),
            (2, route("10.0.0.0", None, 1)),
            (3, route("10.0.1.0", None, 1)),
            (2, route("10.8.0.0", None, 6)),
        ];
        let interface = describe(&link(2, "veth"), &addresses, &routes);
        assert_eq!(interface.addresses, [address("10.0.0.2")]);
        assert_eq!(interface.routes, [routes[1].1.clone(), routes[0].1.clone()]);
    }
}
