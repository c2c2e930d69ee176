//! Routes and their messages, `struct rtmsg` of linux/rtnetlink.h.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DecodeError, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType,
    RouteVia,
};
use proto::Route;

use crate::address::{family, is_internet};

/// The table of the routes to this machine itself, which the kernel keeps.
const RT_TABLE_LOCAL: u32 = 255;

/// A route over an interface, 0: any, as a message has it.
pub(crate) fn message(index: u32, route: &Route) -> RouteMessage {
    let (destination, prefix) = route.destination;
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination),
        destination_prefix_length: prefix,
        // A larger number is only in the attribute; 0 is RT_TABLE_UNSPEC.
        table: u8::try_from(route.table).unwrap_or(0),
        protocol: route.protocol.into(),
        scope: route.scope.into(),
        kind: route.kind.into(),
        ..RouteHeader::default()
    };
    if route.on_link {
        message.header.flags = RouteFlags::Onlink;
    }
    let metric = |mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]);
    let attributes = [
        (prefix != 0).then(|| RouteAttribute::Destination(destination.into())),
        (index != 0 && !leads_nowhere(message.header.kind)).then_some(RouteAttribute::Oif(index)),
        route.gateway.map(|gateway| next_hop(destination, gateway)),
        route
            .source
            .map(|source| RouteAttribute::PrefSource(source.into())),
        (route.metric != 0).then_some(RouteAttribute::Priority(route.metric)),
        (route.table > u32::from(u8::MAX)).then_some(RouteAttribute::Table(route.table)),
        (route.mtu != 0).then(|| metric(route.mtu)),
    ];
    message.attributes = attributes.into_iter().flatten().collect();
    message
}

/// The kernel wants no interface for such a route (IPv4), or takes another one (IPv6).
fn leads_nowhere(kind: RouteType) -> bool {
    matches!(
        kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
    )
}

/// The gateway, which may be of another family than what is behind it.
fn next_hop(destination: IpAddr, gateway: IpAddr) -> RouteAttribute {
    if family(destination) == family(gateway) {
        RouteAttribute::Gateway(gateway.into())
    } else {
        RouteAttribute::Via(gateway.into())
    }
}

/// The interface's index, or 0, and the route in a message; none if it is not one to copy.
pub(crate) fn parse(payload: &[u8]) -> Result<Option<(u32, Route)>, DecodeError> {
    if !is_internet(payload) {
        return Ok(None);
    }
    let message = RouteMessage::parse(payload)?;
    let mut index = 0;
    let mut route = bare_route(&message.header);
    let mut obstacle = (message.header.tos != 0).then_some("a type of service");
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => index = interface,
            RouteAttribute::MultiPath(_) => obstacle = Some("several next hops"),
            RouteAttribute::Encap(_) => obstacle = Some("an encapsulation"),
            RouteAttribute::Source(_) => obstacle = Some("a condition on the source"),
            attribute => complete(&mut route, attribute)?,
        }
    }
    let cached = message.header.flags.contains(RouteFlags::Cloned);
    if cached || route.table == RT_TABLE_LOCAL || leads_to_group(&route) {
        return Ok(None);
    }
    match obstacle {
        None => Ok(Some((index, route))),
        Some(what) => Err(DecodeError::from(format!(
            "route {} has {what}, which is not supported",
            describe(&route)
        ))),
    }
}

/// Adds to a route what an attribute says.
fn complete(route: &mut Route, attribute: RouteAttribute) -> Result<(), DecodeError> {
    match attribute {
        RouteAttribute::Destination(address) => route.destination.0 = ip(&address)?,
        RouteAttribute::Gateway(address) => route.gateway = Some(ip(&address)?),
        RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some(address.into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some(address.into()),
        RouteAttribute::PrefSource(address) => route.source = Some(ip(&address)?),
        RouteAttribute::Priority(metric) => route.metric = metric,
        RouteAttribute::Table(table) => route.table = table,
        RouteAttribute::Metrics(metrics) => route.mtu = mtu(&metrics),
        _ => {}
    }
    Ok(())
}

/// IPv6 has such a route for each interface (RFC 4291, 2.7).
fn leads_to_group(route: &Route) -> bool {
    matches!(route.destination.0, IpAddr::V6(address) if address.is_multicast())
}

/// What is known of a route without attributes.
fn bare_route(header: &RouteHeader) -> Route {
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    Route {
        destination: (unspecified, header.destination_prefix_length),
        gateway: None,
        source: None,
        metric: 0,
        table: header.table.into(),
        scope: header.scope.into(),
        protocol: header.protocol.into(),
        kind: header.kind.into(),
        on_link: header.flags.contains(RouteFlags::Onlink),
        mtu: 0,
    }
}

fn ip(address: &RouteAddress) -> Result<IpAddr, DecodeError> {
    match *address {
        RouteAddress::Inet(address) => Ok(address.into()),
        RouteAddress::Inet6(address) => Ok(address.into()),
        _ => Err(DecodeError::from("an address of another family")),
    }
}

fn mtu(metrics: &[RouteMetric]) -> u32 {
    let mtu = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(0)
}

/// A route in ip-route(8)'s words.
pub(crate) fn describe(route: &Route) -> String {
    let (destination, prefix) = route.destination;
    let mut text = match prefix {
        0 => "default".to_owned(),
        _ => format!("{destination}/{prefix}"),
    };
    if let Some(gateway) = route.gateway {
        // Writing to a String does not fail.
        let _ = write!(text, " via {gateway}");
    }
    text
}

#[cfg(test)]
#[path = "route_test.rs"]
mod tests;
