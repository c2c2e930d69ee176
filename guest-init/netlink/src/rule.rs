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
    use crate::attribute;

    #[test]
    fn a_rule_is_as_ip_rule_sends_it() {
        let message = unreachable(AddressFamily::Inet, 1, 17, 53);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        // AF_INET, FR_ACT_UNREACHABLE.
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]);
        // FRA_PRIORITY, FRA_IP_PROTO, FRA_DPORT_RANGE.
        let priority = attribute(6, &1_u32.to_ne_bytes());
        let ports = attribute(24, &[53_u16.to_ne_bytes(); 2].concat());
        let attributes = [priority, attribute(22, &[17]), ports].concat();
        assert_eq!(bytes[12..], attributes);
    }
}
