use netlink_packet_route::link::LinkHeader;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::*;

const KIND: u16 = libc::RTM_NEWLINK;
const SEQUENCE: u32 = 7;

/// Bytes as a message's payload.
struct Raw(Vec<u8>);

impl Emitable for Raw {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

/// A message with padding, as it is in a datagram.
fn padded(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = message(kind, flags, sequence, &Raw(payload.to_vec()));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn read_all(datagram: &[u8]) -> Result<(Answer, Vec<Vec<u8>>), Reason> {
    let mut answer = Answer::default();
    let mut payloads = Vec::new();
    read(datagram, SEQUENCE, &mut answer, &mut |payload| {
        payloads.push(payload.to_vec())
    })?;
    Ok((answer, payloads))
}

fn refusal(datagram: &[u8]) -> (Option<Errno>, String) {
    let reason = read_all(datagram).unwrap_err();
    (reason.errno, reason.of(format_args!("try")).to_string())
}

/// `struct nlmsgerr` with the request's header, and what follows it.
fn error(errno: Errno, rest: &[u8]) -> Vec<u8> {
    let code = -(errno as i32);
    [&code.to_ne_bytes(), &[0; HEADER][..], rest].concat()
}

#[test]
fn an_answer_ends_with_its_last_message() {
    let datagram = [
        padded(KIND, 0, SEQUENCE, b"odd"),
        padded(NLMSG_NOOP, 0, SEQUENCE, &[]),
        padded(KIND, 0, SEQUENCE - 1, b"of another request"),
        padded(KIND, 0, SEQUENCE, b"next"),
    ]
    .concat();
    let (answer, payloads) = read_all(&datagram).unwrap();
    assert_eq!(payloads, [b"odd".to_vec(), b"next".to_vec()]);
    assert!(!answer.complete && !answer.interrupted);
    for kind in [NLMSG_DONE, NLMSG_ERROR] {
        let end = padded(kind, 0, SEQUENCE, &[0; 4]);
        let behind = padded(KIND, 0, SEQUENCE, b"behind");
        let (answer, payloads) = read_all(&[end, behind].concat()).unwrap();
        assert!(answer.complete && payloads.is_empty());
    }
    let other = padded(NLMSG_ERROR, 0, SEQUENCE + 1, &error(Errno::EPERM, &[]));
    assert!(!read_all(&other).unwrap().0.complete);
}

#[test]
fn one_message_tells_that_a_list_has_changed() {
    let datagram = [
        padded(KIND, NLM_F_DUMP_INTR, SEQUENCE, b"x"),
        padded(NLMSG_DONE, 0, SEQUENCE, &[0; 4]),
    ]
    .concat();
    let (answer, _) = read_all(&datagram).unwrap();
    assert!(answer.complete && answer.interrupted);
}

#[test]
fn an_error_has_the_kernels_number_and_words() {
    let plain = padded(NLMSG_ERROR, 0, SEQUENCE, &error(Errno::EBUSY, &[]));
    let busy = "try: Device or resource busy";
    assert_eq!(refusal(&plain), (Some(Errno::EBUSY), busy.to_owned()));
    // Length and kind of the attribute, then a string.
    let words = [&10_u16.to_ne_bytes(), &1_u16.to_ne_bytes(), &b"taken\0"[..]].concat();
    let payload = error(Errno::EBUSY, &words);
    let explained = padded(NLMSG_ERROR, NLM_F_ACK_TLVS, SEQUENCE, &payload);
    assert_eq!(refusal(&explained).1, format!("{busy} (taken)"));
    // Without the flag it is the request that follows.
    let repeated = padded(NLMSG_ERROR, 0, SEQUENCE, &payload);
    assert_eq!(refusal(&repeated).1, busy);
    let done = padded(NLMSG_DONE, 0, SEQUENCE, &error(Errno::ENOMEM, &[])[..CODE]);
    assert_eq!(refusal(&done).0, Some(Errno::ENOMEM));
    let lost = padded(NLMSG_OVERRUN, 0, SEQUENCE, &[]);
    assert_eq!(refusal(&lost).0, Some(Errno::ENOBUFS));
}

#[test]
fn what_is_no_message_is_an_error() {
    let whole = padded(NLMSG_ERROR, 0, SEQUENCE, &error(Errno::EBUSY, &[]));
    for length in 1..whole.len() {
        assert_eq!(refusal(&whole[..length]).0, None, "{length}");
    }
    let mut short = whole;
    for length in 0..20_u32 {
        short[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(refusal(&short).0, None, "{length}");
    }
    // Cut inside the explanation, which is then none.
    let words = [&200_u16.to_ne_bytes(), &1_u16.to_ne_bytes(), &b"x"[..]].concat();
    let payload = error(Errno::EBUSY, &words);
    let cut = padded(NLMSG_ERROR, NLM_F_ACK_TLVS, SEQUENCE, &payload);
    assert_eq!(refusal(&cut).1, "try: Device or resource busy");
}

#[test]
fn a_request_has_its_length_flags_and_number() {
    let bytes = message(KIND, NLM_F_REQUEST, 0x0102_0304, &LinkHeader::default());
    let header = NetlinkBuffer::new_checked(bytes.as_slice()).unwrap();
    assert_eq!(header.length() as usize, bytes.len());
    assert_eq!(
        (header.message_type(), header.flags()),
        (KIND, NLM_F_REQUEST)
    );
    assert_eq!(
        (header.sequence_number(), header.port_number()),
        (0x0102_0304, 0)
    );
}

#[test]
fn a_datagram_is_read_as_a_whole() {
    let mut socket = Socket::open(NETLINK_ROUTE).unwrap();
    // As if all of them were larger than it.
    socket.buffer = Vec::new();
    let links = socket.dump(libc::RTM_GETLINK, &LinkHeader::default(), |payload| {
        LinkHeader::parse(payload).map(Some)
    });
    assert!(links.unwrap().iter().any(|link| link.index == 1));
}
