use std::net::Ipv4Addr;

use netlink_packet_core::Emitable;
use proptest::prelude::*;

use super::*;
use crate::attribute;

fn bytes(message: &AddressMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn any_address() -> impl Strategy<Value = (u32, Address)> {
    let addresses = (any::<IpAddr>(), any::<Option<IpAddr>>());
    let rest = (any::<u8>(), any::<Option<Ipv4Addr>>(), any::<u8>());
    (any::<u32>(), addresses, rest).prop_map(
        |(index, (address, peer), (prefix, broadcast, scope))| {
            let peer = peer.filter(|&peer| peer != address);
            let address = Address {
                address,
                peer,
                prefix,
                broadcast,
                scope,
            };
            (index, address)
        },
    )
}

proptest! {
    #[test]
    fn an_address_is_what_its_message_says((index, address) in any_address()) {
        let bytes = bytes(&message(index, &address));
        prop_assert_eq!(parse(&bytes).unwrap(), Some((index, address)));
    }

    #[test]
    fn any_bytes_are_an_address_or_an_error(mut bytes: Vec<u8>, ipv6: bool) {
        if let Some(family) = bytes.first_mut() {
            *family = if ipv6 { 10 } else { 2 };
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn a_changed_message_is_an_address_or_an_error(
        (index, address) in any_address(), at: prop::sample::Index, value: u8, length: prop::sample::Index
    ) {
        let mut bytes = bytes(&message(index, &address));
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(length.index(bytes.len() + 1));
        let _ = parse(&bytes);
    }
}

/// `ifaddrmsg` of interface 2, and attributes.
fn recorded(header: [u8; 4], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = [&header[..], &2_u32.to_ne_bytes()].concat();
    let attributes = attributes.iter();
    bytes.extend(attributes.flat_map(|(kind, value)| attribute(*kind, value)));
    bytes
}

#[test]
fn an_address_of_a_network_is_read() {
    // ip addr: inet 172.17.0.2/16 brd 172.17.255.255 scope global eth0
    let bytes = recorded(
        [2, 16, 0x80, 0],
        &[
            (1, &[172, 17, 0, 2]),
            (2, &[172, 17, 0, 2]),
            (4, &[172, 17, 255, 255]),
            (3, b"eth0\0"),
            (8, &0x80_u32.to_ne_bytes()),
            (6, &[0xff; 16]),
        ],
    );
    let (index, address) = parse(&bytes).unwrap().unwrap();
    assert_eq!((index, address.prefix, address.peer), (2, 16, None));
    assert_eq!(address.address.to_string(), "172.17.0.2");
    assert_eq!(address.broadcast, Some(Ipv4Addr::new(172, 17, 255, 255)));
}

#[test]
fn the_local_end_is_the_address() {
    // ip addr: inet 10.0.0.1 peer 10.0.0.9/32 scope host eth0
    let bytes = recorded(
        [2, 32, 0x80, 254],
        &[(1, &[10, 0, 0, 9]), (2, &[10, 0, 0, 1])],
    );
    let (_, address) = parse(&bytes).unwrap().unwrap();
    assert_eq!(address.address.to_string(), "10.0.0.1");
    assert_eq!(address.peer.unwrap().to_string(), "10.0.0.9");
    assert_eq!((address.prefix, address.scope), (32, 254));
}

#[test]
fn an_ipv6_address_comes_without_a_local_one() {
    let bytes = recorded([10, 64, 0x80, 253], &[(1, &[0xfe; 16]), (6, &[0xff; 16])]);
    let (_, address) = parse(&bytes).unwrap().unwrap();
    assert_eq!((address.address, address.peer), ([0xfe; 16].into(), None));
    // It is not looked for on the network when it is added.
    assert_eq!(message(2, &address).header.flags, AddressHeaderFlags::Nodad);
}

#[test]
fn other_families_are_passed_over_and_nonsense_is_an_error() {
    assert_eq!(parse(&recorded([128, 0, 0, 0], &[])).unwrap(), None);
    assert_eq!(parse(&[]).unwrap(), None);
    assert!(parse(&[2, 24]).is_err());
    assert!(parse(&recorded([2, 24, 0, 0], &[])).is_err());
    assert!(parse(&recorded([2, 24, 0, 0], &[(1, &[10, 0, 0])])).is_err());
    let mut overlong = recorded([2, 24, 0, 0], &[(1, &[10, 0, 0, 1])]);
    overlong[8..10].copy_from_slice(&200_u16.to_ne_bytes());
    assert!(parse(&overlong).is_err());
}
