use proptest::prelude::*;

use super::*;

const MAC: MacAddress = MacAddress([2, 0x42, 0xac, 0x11, 0, 2]);

fn bytes(message: &LinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_change_is_what_its_message_says(
        index: u32, mac: [u8; 6], mtu: u32, name in "[a-z]{1,15}", up: bool
    ) {
        let message = change(index, &LinkChange {
            no_ipv6_address: false,
            mac: Some(MacAddress(mac)),
            mtu: Some(mtu),
            name: Some(name.clone()),
            all_multicast: Some(!up),
            up: Some(up),
        });
        let link = Link {
            index,
            name,
            kind: None,
            mac: Some(MacAddress(mac)),
            mtu,
            up,
            loopback: false,
        };
        prop_assert_eq!(Link::parse(&bytes(&message)).unwrap(), link);
    }

    #[test]
    fn any_bytes_are_a_link_or_an_error(bytes: Vec<u8>) {
        let _ = Link::parse(&bytes);
    }

    #[test]
    fn a_changed_message_is_a_link_or_an_error(
        at: prop::sample::Index, value: u8, length: prop::sample::Index
    ) {
        let mut bytes = bytes(&macvtap(2, "tap0", MAC, 1500));
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(length.index(bytes.len() + 1));
        let _ = Link::parse(&bytes);
    }
}

#[test]
fn nothing_changes_that_is_not_told() {
    let message = change(2, &LinkChange::default());
    assert!(message.attributes.is_empty());
    assert_eq!(message.header.change_mask, LinkFlags::empty());
    let up = change(
        2,
        &LinkChange {
            up: Some(true),
            ..LinkChange::default()
        },
    );
    assert_eq!(
        (up.header.flags, up.header.change_mask),
        (LinkFlags::Up, LinkFlags::Up)
    );
}

#[test]
fn the_kind_is_in_an_attribute_of_its_own() {
    let link = Link::parse(&bytes(&macvtap(2, "tap0", MAC, 1500))).unwrap();
    assert_eq!(
        (link.name.as_str(), link.mac, link.mtu),
        ("tap0", Some(MAC), 1500)
    );
    assert_eq!(link.kind.as_deref(), Some("macvtap"));
}

#[test]
fn an_address_that_is_not_ethernets_is_none() {
    let message = LinkMessage {
        header: header(3),
        attributes: vec![DefaultNla::new(IFLA_ADDRESS, vec![10, 0, 0, 1])],
    };
    assert_eq!(Link::parse(&bytes(&message)).unwrap().mac, None);
}
