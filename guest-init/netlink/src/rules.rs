//! The packet filter's rules: the messages of nf_tables, linux/netfilter/nf_tables.h. The kernel takes
//! them in one namespace as it has told them in another, but for what it makes itself.

use std::io;

use libc::{
    NFNETLINK_V0, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFPROTO_INET,
    NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE,
    NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWTABLE,
};
use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NlasIterator,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use proto::PacketRule;

use crate::Result;
use crate::error::Reason;
use crate::expression::{self, attributes, value};
use crate::socket::{Request, Socket};

/// Bytes of `struct nfgenmsg`: family, version, resource (linux/netfilter/nfnetlink.h).
const HEADER: usize = 4;
/// Most bytes of rules: they go in one datagram, for which a socket has 208 KiB (wmem_default).
const MAX_SIZE: usize = 128 << 10;
/// The first attribute of each message: its table's name.
const TABLE: u16 = 1;
pub(crate) const RULE_EXPRESSIONS: u16 = 4;

/// Tables, chains or rules.
struct Kind {
    /// The message that asks for all of them.
    get: i32,
    /// The message that tells one, and makes one.
    new: i32,
    /// The attributes that it is made of. The others are the kernel's: handles, counts, positions.
    attributes: &'static [u16],
}

/// In the order in which they need each other.
const KINDS: [Kind; 3] = [
    Kind {
        get: NFT_MSG_GETTABLE,
        new: NFT_MSG_NEWTABLE,
        // Name, flags, user data.
        attributes: &[TABLE, 2, 6],
    },
    Kind {
        get: NFT_MSG_GETCHAIN,
        new: NFT_MSG_NEWCHAIN,
        // Table, name, hook, policy, type, flags, user data.
        attributes: &[TABLE, 3, 4, 5, 7, 10, 12],
    },
    Kind {
        get: NFT_MSG_GETRULE,
        new: NFT_MSG_NEWRULE,
        // Table, chain, expressions, user data.
        attributes: &[TABLE, 2, RULE_EXPRESSIONS, 7],
    },
];

/// Requests to nf_tables about one network namespace: that of the thread that opens it.
#[derive(Debug)]
pub struct PacketFilter {
    socket: Socket,
}

impl PacketFilter {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// socket(2)'s: EPROTONOSUPPORT if the kernel has no packet filter that is told by messages.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(NETLINK_NETFILTER)?;
        Ok(Self { socket })
    }

    /// The tables for IPv4 and IPv6 with their chains and rules, in an order in which they can be
    /// added. A table is left out if it needs more than that, a set for one.
    ///
    /// # Errors
    /// The kernel's: EINVAL if it has no nf_tables, EPERM without CAP_NET_ADMIN; EMSGSIZE if there
    /// are too many to be added at once; or that a message makes no sense.
    pub fn rules(&mut self) -> Result<Vec<PacketRule>> {
        self.list()
            .map_err(|reason| reason.of(format_args!("list the packet filter's rules")))
    }

    fn list(&mut self) -> std::result::Result<Vec<PacketRule>, Reason> {
        let all = Message {
            family: NFPROTO_UNSPEC,
            resource: 0,
            attributes: &[],
        };
        let mut rules = Vec::new();
        for kind in &KINDS {
            let parse = |payload: &[u8]| parse(kind, payload);
            rules.extend(self.socket.dump(message_type(kind.get), &all, parse)?);
            // Without a table there is nothing else.
            if rules.is_empty() {
                return Ok(rules);
            }
        }
        let rules = movable(rules)?;
        let sizes = rules.iter().map(|rule| rule.attributes.len() + HEADER);
        if sizes.sum::<usize>() > MAX_SIZE {
            return Err(Reason::refused(Errno::EMSGSIZE, None));
        }
        Ok(rules)
    }

    /// Adds what [`rules`](Self::rules) has returned, all or nothing.
    ///
    /// # Errors
    /// The kernel's: EINVAL if it has no nf_tables, ENOENT if it does not know an expression.
    pub fn add(&mut self, rules: &[PacketRule]) -> Result<()> {
        let edge = |kind: i32| Request {
            kind: kind as u16,
            flags: 0,
            body: Message {
                family: NFPROTO_UNSPEC,
                resource: NFNL_SUBSYS_NFTABLES as u16,
                attributes: &[],
            },
        };
        let mut requests = vec![edge(NFNL_MSG_BATCH_BEGIN)];
        requests.extend(rules.iter().map(request));
        // One answer is enough: the first error comes before it.
        if let Some(last) = requests.last_mut() {
            last.flags |= NLM_F_ACK;
        }
        requests.push(edge(NFNL_MSG_BATCH_END));
        self.socket
            .batch(&requests)
            .map_err(|reason| reason.of(format_args!("add the packet filter's rules")))
    }
}

/// A message's type in nfnetlink: the subsystem's number, then the message's.
fn message_type(message: i32) -> u16 {
    (NFNL_SUBSYS_NFTABLES << 8 | message) as u16
}

fn request(rule: &PacketRule) -> Request<Message<'_>> {
    Request {
        kind: message_type(rule.message.into()),
        flags: NLM_F_CREATE | NLM_F_APPEND,
        body: Message {
            family: rule.family.into(),
            resource: 0,
            attributes: &rule.attributes,
        },
    }
}

/// `struct nfgenmsg` and attributes.
struct Message<'a> {
    family: i32,
    resource: u16,
    attributes: &'a [u8],
}

impl Emitable for Message<'_> {
    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let [high, low] = self.resource.to_be_bytes();
        buffer[..HEADER].copy_from_slice(&[self.family as u8, NFNETLINK_V0 as u8, high, low]);
        buffer[HEADER..].copy_from_slice(self.attributes);
    }
}

/// A table, chain or rule from its message; none of another family.
fn parse(kind: &Kind, payload: &[u8]) -> std::result::Result<Option<PacketRule>, DecodeError> {
    let (header, rest) = payload
        .split_at_checked(HEADER)
        .ok_or_else(|| DecodeError::from("a message without a header"))?;
    let family = header[0];
    if ![NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6].contains(&family.into()) {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for attribute in NlasIterator::new(rest) {
        let attribute = attribute?;
        if kind.attributes.contains(&attribute.kind()) {
            let length = usize::from(attribute.length());
            kept.extend_from_slice(&attribute.into_inner()[..length]);
            kept.resize(kept.len().next_multiple_of(4), 0);
        }
    }
    if kind.new == NFT_MSG_NEWRULE {
        kept.extend(expression::compat(family.into(), &kept)?);
    }
    Ok(Some(PacketRule {
        message: kind.new as u8,
        family,
        attributes: kept,
    }))
}

/// Those of tables that need nothing but chains and rules.
fn movable(rules: Vec<PacketRule>) -> std::result::Result<Vec<PacketRule>, DecodeError> {
    let mut immovable = Vec::new();
    for rule in &rules {
        if i32::from(rule.message) == NFT_MSG_NEWRULE && expression::needs_others(&rule.attributes)?
        {
            immovable.push(table(rule)?);
        }
    }
    let mut moved = Vec::new();
    for rule in &rules {
        if !immovable.contains(&table(rule)?) {
            moved.push(rule.clone());
        }
    }
    Ok(moved)
}

/// The family and name of its table.
fn table(rule: &PacketRule) -> std::result::Result<(u8, &[u8]), DecodeError> {
    Ok((rule.family, value(&attributes(&rule.attributes)?, TABLE)))
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
