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

use std::fs;

use anyhow::{Context, Result, bail};
use netlink::{Link, Netlink, PacketFilter};
use proto::{Address, Interface, PacketRule, Route};
use tracing::debug;
use vmm::network::net;

/// What a macvtap cannot lie on, as the kernel calls it.
const NO_ETHERNET: [&str; 5] = ["ipvlan", "ipvtap", "macvtap", "tun", "wireguard"];

/// A setting that a new namespace has from the host, and thus every container: Docker switches it on.
const FORWARDING: &str = "net.ipv4.ip_forward";

/// The container's network: what init is told of it, and the interfaces' devices.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) interfaces: Vec<Interface>,
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
    let links = usable(netlink.links()?)?;
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
        let device = macvtap::add(&mut netlink, &link, &interface, cpus)
            .with_context(|| format!("network interface {}", link.name))?;
        taken.interfaces.push(interface);
        taken.devices.push(device);
    }
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

/// What the guest gets of an interface.
fn describe(link: &Link, addresses: &[(u32, Address)], routes: &[(u32, Route)]) -> Interface {
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
        let names: Vec<_> = usable(links)
            .unwrap()
            .into_iter()
            .map(|link| link.name)
            .collect();
        assert_eq!(names, ["if1", "if2"]);
    }

    #[test]
    fn what_has_no_ethernet_is_refused_by_name() {
        let error = usable(vec![link(2, "veth"), link(7, "ipvlan")]).unwrap_err();
        let expected =
            "network interface if7: of kind \"ipvlan\", which is not supported: use a bridge";
        assert!(error.to_string().starts_with(expected), "{error}");
        let mut tunnel = link(5, "gre");
        tunnel.mac = None;
        assert!(usable(vec![tunnel]).is_err());
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
