//! Addresses and their messages, `struct ifaddrmsg` of linux/if_addr.h.

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage,
};
use proto::Address;

/// The family of an address.
pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Whether a message, which begins with its family, is about IPv4 or IPv6.
pub(crate) fn is_internet(payload: &[u8]) -> bool {
    let family = payload.first().copied().map(AddressFamily::from);
    matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6))
}

/// The address of an interface as a message has it.
pub(crate) fn message(index: u32, address: &Address) -> AddressMessage {
    let local = address.address;
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: family(local),
        prefix_len: address.prefix,
        flags: AddressHeaderFlags::empty(),
        scope: address.scope.into(),
        index,
    };
    if local.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![
        AddressAttribute::Local(local),
        AddressAttribute::Address(address.peer.unwrap_or(local)),
    ];
    let broadcast = address.broadcast.map(AddressAttribute::Broadcast);
    message.attributes.extend(broadcast);
    message
}

/// The interface's index and the address in a message; none of another family.
pub(crate) fn parse(payload: &[u8]) -> Result<Option<(u32, Address)>, DecodeError> {
    if !is_internet(payload) {
        return Ok(None);
    }
    let AddressMessage {
        header, attributes, ..
    } = AddressMessage::parse(payload)?;
    let (mut local, mut prefix_address, mut broadcast) = (None, None, None);
    for attribute in attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(address),
            AddressAttribute::Address(address) => prefix_address = Some(address),
            AddressAttribute::Broadcast(address) => broadcast = Some(address),
            _ => {}
        }
    }
    // Only a point-to-point link has both, and different ones.
    let address = local
        .or(prefix_address)
        .ok_or_else(|| DecodeError::from("an address without an address"))?;
    let parsed = Address {
        address,
        peer: prefix_address.filter(|&peer| peer != address),
        prefix: header.prefix_len,
        broadcast,
        scope: header.scope.into(),
    };
    Ok(Some((header.index, parsed)))
}

#[cfg(test)]
#[path = "address_test.rs"]
mod tests;
