//! Network interfaces, addresses and routes by rtnetlink(7): what the host's side takes from a
//! container's namespace, and what the guest's side makes of it; and the packet filter's rules.
//!
//! [`Netlink`] and [`PacketFilter`] are a socket in the network namespace of the thread that opens it, whichever thread
//! uses it then. What its messages mean is told by pure functions, one module for each kind.

mod address;
mod error;
mod events;
mod expression;
mod link;
mod route;
mod rule;
mod rules;
mod socket;

use std::io;

use libc::{
    RTM_DELADDR, RTM_DELROUTE, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWROUTE, RTM_NEWRULE, RTM_SETLINK,
};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkHeader;
use netlink_packet_route::route::RouteMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use proto::{Address, MacAddress, Route};

pub use error::Error;
pub use events::Events;
pub use link::{Link, LinkChange};
pub use rules::PacketFilter;

use error::Reason;
use socket::Socket;

/// Protocols over IP, as rules have them.
const IPPROTO_TCP: u8 = libc::IPPROTO_TCP as u8;
const IPPROTO_UDP: u8 = libc::IPPROTO_UDP as u8;

/// What comes of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Requests to the kernel about one network namespace. Each call blocks until the kernel has
/// answered, which it does at once.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// socket(2)'s: ENOSYS if the kernel has no network.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(NETLINK_ROUTE)?;
        Ok(Self { socket })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's, or that a message of it makes no sense.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = LinkHeader::default();
        let links = self.socket.dump(RTM_GETLINK, &request, |payload| {
            Ok(Some(Link::parse(payload)?))
        });
        links.map_err(|reason| reason.of(format_args!("list the network interfaces")))
    }

    /// All addresses, IPv4 and IPv6, each with its interface's index; those of one interface are in
    /// the kernel's order.
    ///
    /// # Errors
    /// As [`links`](Self::links).
    pub fn addresses(&mut self) -> Result<Vec<(u32, Address)>> {
        let request = AddressMessage::default();
        let addresses = self.socket.dump(RTM_GETADDR, &request, address::parse);
        addresses.map_err(|reason| reason.of(format_args!("list the network addresses")))
    }

    /// The routes, IPv4 and IPv6, each with its interface's index, 0 if it has none; all but those
    /// to this machine itself and to multicast groups, which the kernel makes with the addresses.
    /// Those without a gateway come first, so that in this order each gateway can be reached when
    /// its route is added: the kernel takes none that is behind another one.
    ///
    /// # Errors
    /// As [`links`](Self::links), and if there is a route that a [`Route`] cannot express.
    pub fn routes(&mut self) -> Result<Vec<(u32, Route)>> {
        let request = RouteMessage::default();
        let mut routes = self
            .socket
            .dump(RTM_GETROUTE, &request, route::parse)
            .map_err(|reason| reason.of(format_args!("list the routes")))?;
        routes.sort_by_key(|(_, route)| route.gateway.is_some());
        Ok(routes)
    }

    /// Adds an address, which is valid at once: an IPv6 one is not looked for on the network first
    /// (RFC 4862, 5.4). One that is there already stays.
    ///
    /// # Errors
    /// The kernel's: EOPNOTSUPP if it does not know the address's family.
    pub fn add_address(&mut self, index: u32, address: &Address) -> Result<()> {
        let message = address::message(index, address);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.socket
            .request(RTM_NEWADDR, flags, &message)
            .map_err(|reason| {
                let (address, prefix) = (address.address, address.prefix);
                reason.of(format_args!("add address {address}/{prefix}"))
            })
    }

    /// Removes an address, and the kernel the routes that need it.
    ///
    /// # Errors
    /// The kernel's: EADDRNOTAVAIL if it is not there.
    pub fn delete_address(&mut self, index: u32, address: &Address) -> Result<()> {
        let message = address::message(index, address);
        self.socket
            .request(RTM_DELADDR, 0, &message)
            .map_err(|reason| {
                let (address, prefix) = (address.address, address.prefix);
                reason.of(format_args!("delete address {address}/{prefix}"))
            })
    }

    /// Adds a route, behind those that are as good. Index 0: the kernel finds the interface.
    ///
    /// # Errors
    /// The kernel's: EEXIST if the very same is there already, ENETUNREACH if the gateway cannot be
    /// reached.
    pub fn add_route(&mut self, index: u32, route: &Route) -> Result<()> {
        let message = route::message(index, route);
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.socket
            .request(RTM_NEWROUTE, flags, &message)
            .map_err(|reason| reason.of(format_args!("add route {}", route::describe(route))))
    }

    /// Deletes the route that is as this one in all that it says.
    ///
    /// # Errors
    /// The kernel's: ESRCH if it is not there.
    pub fn delete_route(&mut self, index: u32, route: &Route) -> Result<()> {
        let message = route::message(index, route);
        self.socket
            .request(RTM_DELROUTE, 0, &message)
            .map_err(|reason| reason.of(format_args!("delete route {}", route::describe(route))))
    }

    /// Has whoever sends to `port` over UDP or TCP, IPv4 or IPv6, fail with ENETUNREACH at once,
    /// unless a rule that comes before `priority` leads somewhere: 0 is for this machine's own
    /// addresses.
    ///
    /// # Errors
    /// The kernel's: EOPNOTSUPP if it has no rules, EEXIST.
    pub fn block_port(&mut self, priority: u32, port: u16) -> Result<()> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for protocol in [IPPROTO_UDP, IPPROTO_TCP] {
                let message = rule::unreachable(family, priority, protocol, port);
                let flags = NLM_F_CREATE | NLM_F_EXCL;
                match self.socket.request(RTM_NEWRULE, flags, &message) {
                    // Without IPv6 nothing can be sent over it.
                    Err(reason) if reason.errno == Some(Errno::EAFNOSUPPORT) => {}
                    result => result
                        .map_err(|reason| reason.of(format_args!("add a rule for port {port}")))?,
                }
            }
        }
        Ok(())
    }

    /// Changes an interface, in the order of [`LinkChange`]'s fields; a failure leaves the rest.
    ///
    /// # Errors
    /// The kernel's: EBUSY if it must be down for that, EEXIST for a name, ENODEV.
    pub fn set_link(&mut self, index: u32, change: &LinkChange) -> Result<()> {
        let attempt = |reason: Reason| reason.of(format_args!("change network interface {index}"));
        if change.no_ipv6_address {
            // A request of its own: the kernel looks at the flags before it (do_setlink).
            let message = link::without_ipv6_address(index);
            match self.socket.request(RTM_SETLINK, 0, &message) {
                // Without IPv6 nobody makes an address.
                Err(reason) if reason.errno == Some(Errno::EAFNOSUPPORT) => {}
                result => result.map_err(attempt)?,
            }
        }
        let message = link::change(index, change);
        self.socket
            .request(RTM_SETLINK, 0, &message)
            .map_err(attempt)
    }

    /// Creates a macvtap in bridge mode: a second Ethernet interface of the interface `lower`,
    /// whose frames are read and written through `/dev/tapN`, N its index. It is down.
    ///
    /// # Errors
    /// The kernel's: EOPNOTSUPP if it has no macvtap, EBUSY if `lower` has no room for it, EEXIST.
    pub fn add_macvtap(&mut self, lower: u32, name: &str, mac: MacAddress, mtu: u32) -> Result<()> {
        let message = link::macvtap(lower, name, mac, mtu);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.socket
            .request(RTM_NEWLINK, flags, &message)
            .map_err(|reason| {
                reason.of(format_args!(
                    "add macvtap {name} over network interface {lower}"
                ))
            })
    }

    /// Creates a pair of Ethernet interfaces that are connected to each other, both down: `name`
    /// with the address `mac`, and `peer`.
    ///
    /// # Errors
    /// As [`add_macvtap`](Self::add_macvtap).
    #[cfg(any(test, feature = "testing"))]
    pub fn add_veth(&mut self, name: &str, mac: MacAddress, peer: &str) -> Result<()> {
        let message = link::veth(name, mac, peer);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.socket
            .request(RTM_NEWLINK, flags, &message)
            .map_err(|reason| reason.of(format_args!("add veth {name}")))
    }

    /// Deletes an interface.
    ///
    /// # Errors
    /// The kernel's: ENODEV, EOPNOTSUPP for one that is hardware's.
    #[cfg(any(test, feature = "testing"))]
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let message = link::change(index, &LinkChange::default());
        self.socket
            .request(libc::RTM_DELLINK, 0, &message)
            .map_err(|reason| reason.of(format_args!("delete network interface {index}")))
    }
}

#[cfg(test)]
mod kernel_test;

/// An attribute (`struct nlattr`, linux/netlink.h) with its padding, as in a message: in this machine's byte order.
#[cfg(test)]
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (value.len() + 4) as u16;
    let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
