//! Rules that come before the routes, `struct fib_rule_hdr` of linux/fib_rules.h.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleHeader, RuleMessage, RulePortRange,
};

/// The type for it is private to netlink-packet-route.
const FRA_IP_PROTO: u16 = 22;

/// A rule that lets no packet of `protocol` (IPPROTO_UDP, for one) to `port` go.
pub(crate) fn unreachable(
    family: AddressFamily,
    priority: u32,
    protocol: u8,
    port: u16,
) -> RuleMessage {
    let ports = RulePortRange {
        start: port,
        end: port,
    };
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family,
        action: RuleAction::Unreachable,
        ..RuleHeader::default()
    };
    message.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::Other(DefaultNla::new(FRA_IP_PROTO, vec![protocol])),
        RuleAttribute::DestinationPortRange(ports),
    ];
    message
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    #[test]
    fn a_rule_is_as_ip_rule_sends_it() {
        let message = unreachable(AddressFamily::Inet, 1, 17, 53);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        // AF_INET, FR_ACT_UNREACHABLE.
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]);
        // FRA_PRIORITY, FRA_IP_PROTO, FRA_DPORT_RANGE, each with its length.
        assert_eq!(bytes[12..20], [8, 0, 6, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[20..28], [5, 0, 22, 0, 17, 0, 0, 0]);
        assert_eq!(bytes[28..], [8, 0, 24, 0, 53, 0, 53, 0]);
    }
}
