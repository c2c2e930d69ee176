//! Network interfaces and their messages, `struct ifinfomsg` of linux/rtnetlink.h.
//!
//! netlink-packet-route has types for all the attributes that an interface of any kind may have,
//! and cannot read the whole if it does not understand one. Here are few, in linux/if_link.h's words.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NlasIterator, parse_string, parse_u32,
};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use proto::MacAddress;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

const IFLA_MACVLAN_MODE: u16 = 1;
/// Those of one lower interface reach each other.
const MACVLAN_MODE_BRIDGE: u32 = 4;

const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Which software makes it, for example `veth`; none: a hardware's driver, or the loopback one.
    pub kind: Option<String>,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Most bytes of a packet, without the Ethernet header.
    pub mtu: u32,
    /// It may send and receive (IFF_UP).
    pub up: bool,
    /// It is the loopback interface.
    pub loopback: bool,
}

/// What of an interface changes; default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// The kernel shall make it no link-local IPv6 address when it gets up.
    pub no_ipv6_address: bool,
    /// The Ethernet address.
    pub mac: Option<MacAddress>,
    /// Most bytes of a packet, without the Ethernet header.
    pub mtu: Option<u32>,
    /// The name, 1 to 15 bytes; with `%d` in it, the kernel puts the first number there that is free.
    /// The interface must be down.
    pub name: Option<String>,
    /// Whether it receives what is sent to any multicast group (IFF_ALLMULTI).
    pub all_multicast: Option<bool>,
    /// Whether it may send and receive.
    pub up: Option<bool>,
}

/// A message about an interface.
#[derive(Debug)]
pub(crate) struct LinkMessage {
    header: LinkHeader,
    attributes: Vec<DefaultNla>,
}

impl Emitable for LinkMessage {
    fn buffer_len(&self) -> usize {
        self.header.buffer_len() + self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.header.emit(buffer);
        let attributes = &mut buffer[self.header.buffer_len()..];
        self.attributes.as_slice().emit(attributes);
    }
}

impl Link {
    /// The interface that a message is about.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        let mut link = Self {
            index: header.index,
            up: header.flags.contains(LinkFlags::Up),
            loopback: header.flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let attributes = payload.get(header.buffer_len()..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                IFLA_IFNAME => link.name = parse_string(value)?,
                IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddress),
                IFLA_MTU => link.mtu = parse_u32(value)?,
                IFLA_LINKINFO => link.kind = kind(value)?,
                _ => {}
            }
        }
        Ok(link)
    }
}

/// What software makes an interface.
fn kind(info: &[u8]) -> Result<Option<String>, DecodeError> {
    for attribute in NlasIterator::new(info) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_INFO_KIND {
            return parse_string(attribute.value()).map(Some);
        }
    }
    Ok(None)
}

/// All of a change but `no_ipv6_address`.
pub(crate) fn change(index: u32, change: &LinkChange) -> LinkMessage {
    let mut header = header(index);
    let flags = [
        (LinkFlags::Allmulti, change.all_multicast),
        (LinkFlags::Up, change.up),
    ];
    for (flag, value) in flags {
        header.flags.set(flag, value == Some(true));
        header.change_mask.set(flag, value.is_some());
    }
    let attributes = [
        change.mac.map(mac_attribute),
        change.mtu.map(|mtu| number(IFLA_MTU, mtu)),
        change.name.as_deref().map(|name| string(IFLA_IFNAME, name)),
    ];
    LinkMessage {
        header,
        attributes: attributes.into_iter().flatten().collect(),
    }
}

/// The change to an interface that gets no IPv6 address by itself.
pub(crate) fn without_ipv6_address(index: u32) -> LinkMessage {
    let mode = DefaultNla::new(IFLA_INET6_ADDR_GEN_MODE, vec![IN6_ADDR_GEN_MODE_NONE]);
    LinkMessage {
        header: header(index),
        attributes: vec![nested(IFLA_AF_SPEC, &[nested(AF_INET6, &[mode])])],
    }
}

/// A new macvtap over the interface `lower`.
pub(crate) fn macvtap(lower: u32, name: &str, mac: MacAddress, mtu: u32) -> LinkMessage {
    let mode = number(IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE);
    let info = [
        string(IFLA_INFO_KIND, "macvtap"),
        nested(IFLA_INFO_DATA, &[mode]),
    ];
    LinkMessage {
        header: header(0),
        attributes: vec![
            string(IFLA_IFNAME, name),
            mac_attribute(mac),
            number(IFLA_MTU, mtu),
            number(IFLA_LINK, lower),
            nested(IFLA_LINKINFO, &info),
        ],
    }
}

/// A new pair of connected interfaces.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn veth(name: &str, mac: MacAddress, peer: &str) -> LinkMessage {
    const VETH_INFO_PEER: u16 = 1;
    let peer = LinkMessage {
        header: header(0),
        attributes: vec![string(IFLA_IFNAME, peer)],
    };
    let mut bytes = vec![0; peer.buffer_len()];
    peer.emit(&mut bytes);
    let info = [
        string(IFLA_INFO_KIND, "veth"),
        nested(IFLA_INFO_DATA, &[DefaultNla::new(VETH_INFO_PEER, bytes)]),
    ];
    LinkMessage {
        header: header(0),
        attributes: vec![
            string(IFLA_IFNAME, name),
            mac_attribute(mac),
            nested(IFLA_LINKINFO, &info),
        ],
    }
}

fn header(index: u32) -> LinkHeader {
    LinkHeader {
        index,
        ..LinkHeader::default()
    }
}

fn mac_attribute(MacAddress(bytes): MacAddress) -> DefaultNla {
    DefaultNla::new(IFLA_ADDRESS, bytes.to_vec())
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

fn string(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

#[cfg(test)]
#[path = "link_test.rs"]
mod tests;
