//! What of a network a container has: interfaces with their addresses and routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network interface, as the command finds it. The loopback interface is there in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interface {
    /// Which one it is: the MAC address of its virtio-net device.
    pub mac: MacAddress,
    /// The name that it gets, for example `eth0`.
    pub name: String,
    /// Most bytes of a packet, without the Ethernet header; 0: the device's own.
    pub mtu: u32,
    /// Its addresses, in the order in which the kernel lists them. Without an IPv6 one among them,
    /// the interface has no IPv6.
    pub addresses: Vec<Address>,
    /// The routes over it, in an order in which each gateway can be reached when its route is added.
    pub routes: Vec<Route>,
}

/// An Ethernet address, written `02:42:ac:11:00:02`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether it can be one interface's: not a group's, and not zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        let complete = bytes.iter_mut().all(|byte| {
            let is_hex =
                |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(is_hex);
            let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            value.map(|value| *byte = value).is_some()
        });
        if complete && parts.next().is_none() {
            Ok(Self(bytes))
        } else {
            Err(format!(
                "{text:?} is no MAC address: write one like 02:42:ac:11:00:02"
            ))
        }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

/// An address of an interface, `struct ifaddrmsg` of linux/if_addr.h.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address, IFA_LOCAL.
    pub address: IpAddr,
    /// The other end's, IFA_ADDRESS, of a link that has only one; none: it is on a network.
    #[serde(default)]
    pub peer: Option<IpAddr>,
    /// Bits of it, or of the other end's, that are the network's.
    pub prefix: u8,
    /// The network's broadcast address, which only IPv4 has.
    #[serde(default)]
    pub broadcast: Option<Ipv4Addr>,
    /// How far it is valid: 0 everywhere, 253 on this link, 254 on this machine (rtnetlink(7)).
    #[serde(default)]
    pub scope: u8,
}

/// A route, `struct rtmsg` of linux/rtnetlink.h. Without an interface it is for the kernel to find one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads: an address and how many bits of it count; 0.0.0.0/0 or ::/0 is the default.
    pub destination: (IpAddr, u8),
    /// The next hop, which may be an IPv6 address for an IPv4 route; none: the destination is on the link.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The address that packets are sent from; none: the kernel chooses.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// The lower, the better; 0: the kernel's default.
    #[serde(default)]
    pub metric: u32,
    /// The routing table; 254 is the main one.
    #[serde(default = "main_table")]
    pub table: u32,
    /// How far it leads, as in [`Address::scope`].
    #[serde(default)]
    pub scope: u8,
    /// Who made it: 2 the kernel, 3 at boot, 4 by an administrator.
    #[serde(default = "static_route")]
    pub protocol: u8,
    /// 1: to a host; 6: packets are dropped; 7: they are refused; 8: they are forbidden.
    #[serde(default = "unicast")]
    pub kind: u8,
    /// The gateway is on the link though no address of the interface says so.
    #[serde(default)]
    pub on_link: bool,
    /// The path's MTU; 0: the interface's.
    #[serde(default)]
    pub mtu: u32,
}

/// Docker's resolver, which only the host can reach: init takes its place in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolver {
    /// Where it is asked, at port 53 over UDP and TCP.
    pub address: IpAddr,
    /// The servers that init asks itself, in this order, what Docker's resolver cannot answer.
    #[serde(default)]
    pub servers: Vec<IpAddr>,
    /// The ports, UDP's and TCP's, that [`PacketRule`]s lead those to who ask at port 53; none:
    /// there are no such rules.
    #[serde(default)]
    pub ports: Option<(u16, u16)>,
}

/// A table, a chain or a rule of the packet filter, in the words of linux/netfilter/nf_tables.h.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketRule {
    /// The message that makes it: `NFT_MSG_NEWTABLE`, `NFT_MSG_NEWCHAIN` or `NFT_MSG_NEWRULE`.
    pub message: u8,
    /// What packets it is for: `NFPROTO_INET`, `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub family: u8,
    /// The message's attributes.
    pub attributes: Vec<u8>,
}

impl fmt::Debug for PacketRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, family, bytes) = (self.message, self.family, self.attributes.len());
        write!(f, "PacketRule({message} for {family}, {bytes} bytes)")
    }
}

/// `RT_TABLE_MAIN`.
fn main_table() -> u32 {
    254
}

/// `RTPROT_STATIC`.
fn static_route() -> u8 {
    4
}

/// `RTN_UNICAST`.
fn unicast() -> u8 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_as_they_are_written() {
        let address: MacAddress = "02:42:ac:11:00:fe".parse().unwrap();
        assert_eq!(address, MacAddress([2, 0x42, 0xac, 0x11, 0, 0xfe]));
        assert_eq!(address.to_string(), "02:42:ac:11:00:fe");
        assert!(address.is_unicast());
        for text in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:fe:00",
            "+2:42:ac:11:00:fe",
            "0242ac1100fe",
            "x",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
        for group in [
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(
                !group.parse::<MacAddress>().unwrap().is_unicast(),
                "{group}"
            );
        }
    }
}
