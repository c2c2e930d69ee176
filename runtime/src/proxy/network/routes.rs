//! The routes of an interface that stay in the namespace when its addresses go.

use std::net::{IpAddr, Ipv4Addr};

use netlink::{Netlink, Result};
use nix::errno::Errno;
use proto::{Address, Interface, Route};

/// Who makes a route of ours (`rtm_protocol`): a number that is nobody's (linux/rtnetlink.h).
pub(crate) const KEPT: u8 = b'q';
/// Who makes the route to an address's network.
const RTPROT_KERNEL: u8 = 2;

/// An address that is the namespace's anyway, for itself alone.
const LOOPBACK: Address = Address {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    peer: None,
    prefix: 32,
    broadcast: None,
    scope: 254, // RT_SCOPE_HOST: no packet to another host is sent from it.
};

/// Prepares an interface for losing its addresses: Docker will ask the way to a gateway at any time,
/// and must always find it.
///
/// # Errors
/// The kernel's.
pub(super) fn keep(netlink: &mut Netlink, index: u32, interface: &Interface) -> Result<()> {
    // With the last IPv4 address go all the IPv4 routes of an interface (fib_inetaddr_event).
    let is_ipv4 = |address: &Address| address.address.is_ipv4();
    if interface.addresses.iter().any(is_ipv4) {
        netlink.add_address(index, &LOOPBACK)?;
    }
    for kept in interface.routes.iter().filter_map(substitute) {
        match netlink.add_route(index, &kept) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            result => result?,
        }
    }
    Ok(())
}

/// What takes the place of a route that would vanish with an address; none if it would not.
fn substitute(route: &Route) -> Option<Route> {
    let is_ipv4 = route.destination.0.is_ipv4();
    let vanishes = route.protocol == RTPROT_KERNEL || (is_ipv4 && route.source.is_some());
    vanishes.then(|| Route {
        source: None,
        protocol: KEPT,
        // IPv6 has only one of a metric, and removes the best one (addrconf_get_prefix_route).
        metric: route.metric.saturating_add(u32::from(!is_ipv4)),
        ..route.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, protocol: u8, source: Option<&str>) -> Route {
        Route {
            destination: (destination.parse().unwrap(), 24),
            gateway: None,
            source: source.map(|source| source.parse().unwrap()),
            metric: 256,
            table: 254,
            scope: 253,
            protocol,
            kind: 1,
            on_link: false,
            mtu: 0,
        }
    }

    #[test]
    fn what_needs_an_address_gets_a_substitute_without() {
        let kept = |destination, metric| Route {
            metric,
            ..route(destination, KEPT, None)
        };
        let v4 = |protocol, source| substitute(&route("10.0.0.0", protocol, source));
        assert_eq!(v4(2, Some("10.0.0.2")), Some(kept("10.0.0.0", 256)));
        assert_eq!(v4(4, Some("10.0.0.2")), Some(kept("10.0.0.0", 256)));
        assert_eq!(v4(3, None), None);
        let v6 = |protocol, source| substitute(&route("fd00::", protocol, source));
        assert_eq!(v6(2, None), Some(kept("fd00::", 257)));
        assert_eq!(v6(3, Some("fd00::2")), None);
    }
}
