//! What a rule's expressions say (`enum nft_rule_attributes` and on, linux/netfilter/nf_tables.h).

use libc::{NFPROTO_IPV6, NFT_META_L4PROTO};
use netlink_packet_core::{DecodeError, NLA_HEADER_SIZE, NlasIterator, parse_u32_be};

use crate::rules::RULE_EXPRESSIONS;

/// Expressions that need another object of the table: a set, a counter, a flow table.
const NEED_OTHERS: [&[u8]; 4] = [b"lookup\0", b"dynset\0", b"objref\0", b"flow_offload\0"];
/// Expressions that are iptables' own, in a wrapper.
const WRAPPERS: [&[u8]; 2] = [b"match\0", b"target\0"];
/// NFTA_RULE_COMPAT with NFTA_RULE_COMPAT_PROTO and NFTA_RULE_COMPAT_FLAGS.
const COMPAT: u16 = 5;
const COMPAT_PROTOCOL: u16 = 1;
const COMPAT_FLAGS: u16 = 2;
/// The header's byte that names the protocol inside (RFC 791, 3.1; RFC 8200, 3).
const IPV4_PROTOCOL: u32 = 9;
const IPV6_NEXT_HEADER: u32 = 6;
/// NFT_PAYLOAD_NETWORK_HEADER and NFT_CMP_EQ.
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;

type Result<T> = std::result::Result<T, DecodeError>;

/// An attribute's number and value.
pub(crate) type Attribute<'a> = (u16, &'a [u8]);

/// The attributes in a message or in another attribute.
pub(crate) fn attributes(bytes: &[u8]) -> Result<Vec<Attribute<'_>>> {
    let mut attributes = Vec::new();
    for attribute in NlasIterator::new(bytes) {
        let attribute = attribute?;
        let value = NLA_HEADER_SIZE..usize::from(attribute.length());
        attributes.push((attribute.kind(), &attribute.into_inner()[value]));
    }
    Ok(attributes)
}

/// The value of attribute `kind`, empty if there is none.
pub(crate) fn value<'a>(attributes: &[Attribute<'a>], kind: u16) -> &'a [u8] {
    let found = attributes.iter().find(|(other, _)| *other == kind);
    found.map_or(&[], |(_, value)| value)
}

/// Name and data of each expression in a rule's attributes (NFTA_EXPR_NAME, NFTA_EXPR_DATA).
fn expressions(rule: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut expressions = Vec::new();
    for (_, expression) in attributes(value(&attributes(rule)?, RULE_EXPRESSIONS))? {
        let parts = attributes(expression)?;
        expressions.push((value(&parts, 1), value(&parts, 2)));
    }
    Ok(expressions)
}

/// Whether a rule needs other objects of its table than chains.
pub(crate) fn needs_others(rule: &[u8]) -> Result<bool> {
    let expressions = expressions(rule)?;
    Ok(expressions
        .iter()
        .any(|(name, _)| NEED_OTHERS.contains(name)))
}

/// The attribute NFTA_RULE_COMPAT of a rule that needs one. The kernel does not tell it, but
/// extensions of iptables insist on it: the protocol that the rule is for.
pub(crate) fn compat(family: i32, rule: &[u8]) -> Result<Vec<u8>> {
    let expressions = expressions(rule)?;
    if !expressions.iter().any(|(name, _)| WRAPPERS.contains(name)) {
        return Ok(Vec::new());
    }
    for pair in expressions.windows(2) {
        if let [load, compare] = pair
            && loads_protocol(family, load)?
            && let Some(protocol) = equal_to(compare)?
        {
            return Ok(emit(protocol));
        }
    }
    Ok(Vec::new())
}

/// Whether an expression loads the number of the packet's protocol.
fn loads_protocol(family: i32, &(name, data): &(&[u8], &[u8])) -> Result<bool> {
    let data = attributes(data)?;
    let number = |kind| parse_u32_be(value(&data, kind)).ok();
    Ok(match name {
        // NFTA_META_KEY.
        b"meta\0" => number(2) == Some(NFT_META_L4PROTO as u32),
        // NFTA_PAYLOAD_BASE, _OFFSET and _LEN.
        b"payload\0" => {
            let offset = if family == NFPROTO_IPV6 {
                IPV6_NEXT_HEADER
            } else {
                IPV4_PROTOCOL
            };
            [number(2), number(3), number(4)] == [Some(NETWORK_HEADER), Some(offset), Some(1)]
        }
        _ => false,
    })
}

/// The byte that an expression compares with, if it wants equality (NFTA_CMP_OP, NFTA_CMP_DATA with
/// NFTA_DATA_VALUE).
fn equal_to(&(name, data): &(&[u8], &[u8])) -> Result<Option<u8>> {
    let data = attributes(data)?;
    if name != b"cmp\0" || parse_u32_be(value(&data, 2)).ok() != Some(EQUAL) {
        return Ok(None);
    }
    let operand = attributes(value(&data, 3))?;
    Ok(match value(&operand, 1) {
        [byte] => Some(*byte),
        _ => None,
    })
}

fn emit(protocol: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    for (at, length, kind) in [
        (0, 20, COMPAT),
        (4, 8, COMPAT_PROTOCOL),
        (12, 8, COMPAT_FLAGS),
    ] {
        bytes[at..at + 2].copy_from_slice(&u16::to_ne_bytes(length));
        bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
    }
    bytes[8..12].copy_from_slice(&u32::from(protocol).to_be_bytes());
    bytes
}
