use netlink_packet_core::Emitable;
use proptest::prelude::*;

use super::*;
use crate::attribute;

fn bytes(message: &RouteMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// Routes that a container may have: of any table but the local one, to no group.
fn any_route() -> impl Strategy<Value = (u32, Route)> {
    let addresses = any::<(IpAddr, Option<IpAddr>, Option<IpAddr>)>();
    let numbers = any::<(u32, u32, u32)>();
    let bytes = any::<(u8, u8, u8)>();
    (
        any::<u32>(),
        any::<u8>(),
        addresses,
        numbers,
        bytes,
        any::<bool>(),
    )
        .prop_map(|(index, prefix, addresses, numbers, bytes, on_link)| {
            let (destination, gateway, source) = addresses;
            let (metric, table, mtu) = numbers;
            let (scope, protocol, kind) = bytes;
            let same = |address: &IpAddr| address.is_ipv4() == destination.is_ipv4();
            let unspecified = match destination {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let route = Route {
                destination: (
                    if prefix == 0 {
                        unspecified
                    } else {
                        destination
                    },
                    prefix,
                ),
                gateway,
                source: source.filter(same),
                metric,
                table,
                scope,
                protocol,
                kind,
                on_link,
                mtu,
            };
            let index = if leads_nowhere(kind.into()) { 0 } else { index };
            (index, route)
        })
        .prop_filter("the kernel makes such routes itself", |(_, route)| {
            route.table != RT_TABLE_LOCAL && !leads_to_group(route)
        })
}

proptest! {
    #[test]
    fn a_route_is_what_its_message_says((index, route) in any_route()) {
        let bytes = bytes(&message(index, &route));
        prop_assert_eq!(parse(&bytes).unwrap(), Some((index, route)));
    }

    #[test]
    fn any_bytes_are_a_route_or_an_error(mut bytes: Vec<u8>, ipv6: bool) {
        if let Some(family) = bytes.first_mut() {
            *family = if ipv6 { 10 } else { 2 };
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn a_changed_message_is_a_route_or_an_error(
        (index, route) in any_route(), at: prop::sample::Index, value: u8, length: prop::sample::Index
    ) {
        let mut bytes = bytes(&message(index, &route));
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(length.index(bytes.len() + 1));
        let _ = parse(&bytes);
    }
}

/// `rtmsg`: family, destination's and source's length, type of service, table, protocol, scope,
/// kind and flags; and attributes.
fn recorded(header: [u8; 8], flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = [&header[..], &flags.to_ne_bytes()].concat();
    let attributes = attributes.iter();
    bytes.extend(attributes.flat_map(|(kind, value)| attribute(*kind, value)));
    bytes
}

const MAIN: (u16, &[u8]) = (15, &254_u32.to_ne_bytes());
const ETH0: (u16, &[u8]) = (4, &2_u32.to_ne_bytes());

fn read(header: [u8; 8], flags: u32, attributes: &[(u16, &[u8])]) -> (u32, Route) {
    parse(&recorded(header, flags, attributes))
        .unwrap()
        .unwrap()
}

#[test]
fn dockers_routes_are_read() {
    // default via 172.17.0.1 dev eth0
    let (index, route) = read(
        [2, 0, 0, 0, 254, 3, 0, 1],
        0,
        &[MAIN, (5, &[172, 17, 0, 1]), ETH0],
    );
    assert_eq!(describe(&route), "default via 172.17.0.1");
    assert_eq!(
        (index, route.table, route.scope, route.protocol),
        (2, 254, 0, 3)
    );
    // 172.17.0.0/16 dev eth0 proto kernel scope link src 172.17.0.2
    let (index, route) = read(
        [2, 16, 0, 0, 254, 2, 253, 1],
        0,
        &[MAIN, (1, &[172, 17, 0, 0]), (7, &[172, 17, 0, 2]), ETH0],
    );
    assert_eq!(describe(&route), "172.17.0.0/16");
    assert_eq!((index, route.scope, route.protocol), (2, 253, 2));
    assert_eq!(route.source, Some([172, 17, 0, 2].into()));
    // fe80::/64 dev eth0 proto kernel metric 256 pref medium
    let mut link_local = [0; 16];
    link_local[..2].copy_from_slice(&[0xfe, 0x80]);
    let cache_info = (12, &[0; 32][..]);
    let (_, route) = read(
        [10, 64, 0, 0, 254, 2, 0, 1],
        0,
        &[
            MAIN,
            (1, &link_local),
            (6, &256_u32.to_ne_bytes()),
            ETH0,
            cache_info,
            (20, &[0]),
        ],
    );
    assert_eq!(
        (describe(&route).as_str(), route.metric),
        ("fe80::/64", 256)
    );
}

#[test]
fn a_gateway_may_be_on_the_link_or_of_another_family() {
    let (_, route) = read(
        [2, 8, 0, 0, 254, 4, 0, 1],
        4,
        &[MAIN, (1, &[10, 0, 0, 0]), (5, &[192, 0, 2, 1]), ETH0],
    );
    assert!(route.on_link);
    assert_eq!(message(2, &route).header.flags, RouteFlags::Onlink);
    // default via inet6 fe80::1 dev eth0
    let gateway = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let via = [&10_u16.to_ne_bytes()[..], &gateway].concat();
    let (_, route) = read([2, 0, 0, 0, 254, 4, 0, 1], 0, &[MAIN, (18, &via), ETH0]);
    assert_eq!(describe(&route), "default via fe80::1");
    let attributes = message(2, &route).attributes;
    assert!(
        matches!(attributes[1], RouteAttribute::Via(RouteVia::Inet6(_))),
        "{attributes:?}"
    );
}

#[test]
fn metrics_and_large_tables_are_read() {
    // 10.0.0.0/8 dev eth0 table 1000 metric 50 mtu lock 1400
    let metrics = [(1, 4_u32), (2, 1400)]
        .map(|(kind, value)| attribute(kind, &value.to_ne_bytes()))
        .concat();
    let (_, route) = read(
        [2, 8, 0, 0, 252, 3, 253, 1],
        0,
        &[
            (15, &1000_u32.to_ne_bytes()),
            (1, &[10, 0, 0, 0]),
            (6, &50_u32.to_ne_bytes()),
            (8, &metrics),
            ETH0,
        ],
    );
    assert_eq!((route.table, route.metric, route.mtu), (1000, 50, 1400));
    assert_eq!(message(2, &route).header.table, 0);
}

#[test]
fn a_route_to_nowhere_has_no_interface() {
    for kind in 6..=9 {
        let (index, route) = read(
            [2, 8, 0, 0, 254, 3, 0, kind],
            0,
            &[MAIN, (1, &[10, 0, 0, 0])],
        );
        assert_eq!((index, route.kind), (0, kind));
        // In IPv6 they are the loopback interface's.
        let (index, route) = read(
            [10, 0, 0, 0, 254, 3, 0, kind],
            0,
            &[MAIN, (4, &1_u32.to_ne_bytes())],
        );
        assert_eq!((index, route.kind), (1, kind));
        let attributes = message(index, &route).attributes;
        assert!(
            !attributes
                .iter()
                .any(|a| matches!(a, RouteAttribute::Oif(_)))
        );
    }
}

#[test]
fn what_the_kernel_makes_itself_is_passed_over() {
    let local = recorded(
        [2, 32, 0, 0, 255, 2, 254, 2],
        0,
        &[(15, &255_u32.to_ne_bytes())],
    );
    let cached = recorded([10, 0, 0, 0, 254, 2, 0, 1], 0x200, &[MAIN, ETH0]);
    let mut groups = [0; 16];
    groups[0] = 0xff;
    let group = recorded([10, 8, 0, 0, 254, 2, 0, 1], 0, &[MAIN, (1, &groups), ETH0]);
    // Multicast forwarding, RTNL_FAMILY_IPMR.
    let other_family = recorded([128, 0, 0, 0, 254, 2, 0, 1], 0, &[MAIN]);
    for message in [local, cached, group, other_family, vec![]] {
        assert_eq!(parse(&message).unwrap(), None);
    }
}

#[test]
fn what_cannot_be_copied_is_named() {
    let destination = (1, &[10, 0, 0, 0][..]);
    // rtnexthop: length, flags, weight, interface, gateway.
    let hop = [
        &16_u16.to_ne_bytes()[..],
        &[0, 0],
        &2_u32.to_ne_bytes(),
        &attribute(5, &[10, 0, 0, 1]),
    ]
    .concat();
    let several = recorded(
        [2, 8, 0, 0, 254, 3, 0, 1],
        0,
        &[MAIN, destination, (9, &hop.repeat(2))],
    );
    let of_service = recorded([2, 8, 0, 8, 254, 3, 0, 1], 0, &[MAIN, destination, ETH0]);
    let from = recorded(
        [10, 0, 64, 0, 254, 3, 0, 1],
        0,
        &[MAIN, (2, &[0xfd; 16]), ETH0],
    );
    for (message, expected) in [
        (several, "route 10.0.0.0/8 has several next hops"),
        (of_service, "route 10.0.0.0/8 has a type of service"),
        (from, "route default has a condition on the source"),
    ] {
        let error = parse(&message).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn nonsense_is_an_error() {
    let header = [2, 8, 0, 0, 254, 3, 0, 1];
    assert!(parse(&[2, 8]).is_err());
    assert!(parse(&recorded(header, 0, &[(1, &[10])])).is_err());
    assert!(parse(&recorded(header, 0, &[(5, &[0; 16])])).is_err());
    let via = [&10_u16.to_ne_bytes()[..], &[1]].concat();
    assert!(parse(&recorded(header, 0, &[(18, &via)])).is_err());
    let mut hop = [0; 8];
    hop[..2].copy_from_slice(&200_u16.to_ne_bytes());
    assert!(parse(&recorded(header, 0, &[(9, &hop)])).is_err());
    let mut overlong = recorded(header, 0, &[MAIN]);
    overlong[12..14].copy_from_slice(&200_u16.to_ne_bytes());
    assert!(parse(&overlong).is_err());
}
