//! Name resolution: the messages by which init asks the resolver of the container's network, and
//! what both sides look at in the DNS messages that they carry (RFC 1035).
//!
//! They travel over the virtio port [`DNS_PORT`], one a frame. Answers come in any order, or not at
//! all: a query is given up after [`PATIENCE`].

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Message;

/// Name of the virtio port for queries and answers, both ways.
pub const DNS_PORT: &str = "runq.dns";

/// Most bytes of a DNS message: over TCP its length has 16 bits (RFC 1035, 4.2.2).
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// How long Docker's resolver has for an answer. It gives an external server 4 s (`extIOTimeout` of
/// libnetwork), and then says SERVFAIL or, in older versions, nothing. The command's C library asks
/// again after 5 s (resolv.conf(5)): another server should have answered by then.
pub const PATIENCE: Duration = Duration::from_millis(4500);

/// Most queries that are under way at once.
pub const MAX_QUERIES: usize = 64;

/// A query of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsQuery {
    /// The answer has it, too.
    pub id: u32,
    /// Over TCP, else UDP: the answer is made to fit.
    pub stream: bool,
    /// The DNS message.
    pub message: Vec<u8>,
}

/// The host's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// The query's.
    pub id: u32,
    /// The DNS message; empty if there is none.
    pub message: Vec<u8>,
}

impl Message for DnsQuery {
    const VERSION: Option<u32> = None;
}

impl Message for DnsAnswer {
    const VERSION: Option<u32> = None;
}

/// Bytes of a header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// In byte 2 of the header: QR, and TC.
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
/// In byte 3: RA, recursion available, and RCODE.
const RECURSION: u8 = 0x80;
const RCODE: u8 = 0x0f;
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;
/// Most bytes of a name (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// Most bytes over UDP if the query says nothing else (RFC 1035, 4.2.1), also if it says less (RFC
/// 6891, 6.2.3).
const MIN_UDP: usize = 512;
/// Types of resource records: RFC 1035, 3.2.2; RFC 3596, 2.1; RFC 6891, 6.1.2.
const A: u16 = 1;
const AAAA: u16 = 28;
const OPT: u16 = 41;
/// The class IN (RFC 1035, 3.2.4).
const INTERNET: u16 = 1;

/// The question section of a message with exactly one question (RFC 9619). Its name is not compressed:
/// there is nothing before it that it could point to.
pub fn question(message: &[u8]) -> Option<&[u8]> {
    if message.len() > MAX_MESSAGE || u16_at(message, 4)? != 1 {
        return None;
    }
    let end = name_end(message, HEADER, false)?.checked_add(4)?;
    message.get(HEADER..end)
}

/// Whether a message is a query that we understand as far as needed.
pub fn is_query(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & RESPONSE == 0) && question(message).is_some()
}

/// Whether `answer` is one to `query`: a response with its id and question.
pub fn answers(query: &[u8], answer: &[u8]) -> bool {
    let same_question = || {
        let (asked, (name, rest)) = (question(query)?, split_question(question(answer)?)?);
        let (asked_name, asked_rest) = split_question(asked)?;
        // Servers may change the case of letters.
        Some(name.eq_ignore_ascii_case(asked_name) && rest == asked_rest)
    };
    answer.get(2).is_some_and(|flags| flags & RESPONSE != 0)
        && answer.get(..2) == query.get(..2)
        && same_question().unwrap_or_default()
}

/// Whether a server says with this answer that it cannot answer, and another one may.
pub fn is_failure(answer: &[u8]) -> bool {
    let code = answer.get(3).map(|flags| flags & RCODE);
    code.is_none_or(|code| matches!(code, SERVER_FAILURE | REFUSED))
}

/// The answer SERVFAIL to a query.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let mut answer = without_records(query)?;
    // The opcode and RD are copied (RFC 1035, 4.1.1).
    answer[2] = (query[2] & !TRUNCATED) | RESPONSE;
    answer[3] = RECURSION | SERVER_FAILURE;
    Some(answer)
}

/// The answer without its records, but with TC, which makes the client ask again over TCP.
pub fn truncated(answer: &[u8]) -> Option<Vec<u8>> {
    let mut short = without_records(answer)?;
    short[2] |= TRUNCATED;
    Some(short)
}

/// Most bytes of an answer over UDP that whoever sent `query` accepts.
pub fn udp_size(query: &[u8]) -> usize {
    let option = records(query).find(|record| record.kind == OPT);
    let size = option.map_or(0, |option| usize::from(option.class));
    size.max(MIN_UDP)
}

/// The addresses in an answer, in this order.
pub fn addresses(answer: &[u8]) -> impl Iterator<Item = IpAddr> {
    let of_internet = records(answer).filter(|record| record.class == INTERNET);
    of_internet.filter_map(|record| match record.kind {
        A => <[u8; 4]>::try_from(record.data).ok().map(IpAddr::from),
        AAAA => <[u8; 16]>::try_from(record.data).ok().map(IpAddr::from),
        _ => None,
    })
}

/// A query for the IPv4 or IPv6 addresses of a name.
///
/// None if it is no name: labels of 1 to 63 bytes, with dots between them.
pub fn address_query(id: u16, name: &str, ipv6: bool) -> Option<Vec<u8>> {
    let mut query = id.to_be_bytes().to_vec();
    // RD, and one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        query.push(length);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend((if ipv6 { AAAA } else { A }).to_be_bytes());
    query.extend(INTERNET.to_be_bytes());
    // An empty label would have ended the name.
    let is_whole = question(&query)?.len() == query.len() - HEADER;
    is_whole.then_some(query)
}

/// Header and question of a message, which then says that there are no records.
fn without_records(message: &[u8]) -> Option<Vec<u8>> {
    let question = question(message)?;
    let mut short = message.get(..HEADER)?.to_vec();
    short[6..].fill(0);
    short.extend_from_slice(question);
    Some(short)
}

/// A question's name, and its type and class.
fn split_question(question: &[u8]) -> Option<(&[u8], &[u8])> {
    question.split_at_checked(question.len().checked_sub(4)?)
}

/// A resource record (RFC 1035, 4.1.3), its name and time to live left out.
struct Record<'a> {
    kind: u16,
    class: u16,
    data: &'a [u8],
}

/// The records of all sections, as far as they can be read.
fn records(message: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut at = question(message).map_or(message.len(), |question| HEADER + question.len());
    std::iter::from_fn(move || {
        let start = name_end(message, at, true)?;
        let length = usize::from(u16_at(message, start + 8)?);
        let data = message.get(start + 10..)?.get(..length)?;
        at = start + 10 + length;
        Some(Record {
            kind: u16_at(message, start)?,
            class: u16_at(message, start + 2)?,
            data,
        })
    })
}

/// Where a name ends (RFC 1035, 4.1.4). A pointer ends it, wherever it points to: it is not followed.
fn name_end(message: &[u8], start: usize, compressed: bool) -> Option<usize> {
    let mut at = start;
    while at - start < MAX_NAME {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            0xc0.. if compressed => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
    None
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
#[path = "dns_test.rs"]
mod tests;
