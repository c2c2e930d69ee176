//! Requests over a netlink(7) socket, and the kernel's answers.

use std::io;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkHeader, NlasIterator, parse_i32, parse_string,
};
use netlink_sys::SocketAddr;
use nix::errno::Errno;

use crate::error::Reason;

/// Bytes for messages: as many as the kernel puts into one of its buffers (netlink_dump).
const BUFFER: usize = 32 * 1024;
/// How often a list is asked for that changes while it is read.
const ATTEMPTS: usize = 16;
/// Bytes of `struct nlmsghdr`, and of an error's number.
const HEADER: usize = 16;
const CODE: usize = 4;
/// What the kernel says in words (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A socket that is connected to the kernel: nobody else can write to it.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One of several requests; its body fills up to a multiple of NLMSG_ALIGNTO.
pub(crate) struct Request<B> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: B,
}

/// How far an answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answer {
    complete: bool,
    /// Something changed meanwhile, and may be there twice or not at all.
    interrupted: bool,
}

impl Socket {
    /// Opens one for a protocol of netlink(7), which is what the messages are about.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let socket = Self::connected(protocol)?;
        // Errors are explained, and do not repeat the request; without (before Linux 4.12) they are
        // numbers.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// A socket that only the kernel writes to.
    pub(crate) fn connected(protocol: isize) -> io::Result<netlink_sys::Socket> {
        let socket = netlink_sys::Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    }

    /// Asks for something to be done.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Emitable,
    ) -> Result<(), Reason> {
        self.send(kind, flags | NLM_F_ACK, body)?;
        self.answer(&mut |_| ()).map(drop)
    }

    /// Asks for a list; `parse` makes of each message an element, or none.
    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, Reason> {
        for _ in 0..ATTEMPTS {
            self.send(kind, NLM_F_DUMP, body)?;
            let mut elements = Ok(Vec::new());
            // The rest is read after an error, too: until then the kernel takes no further request.
            let answer = self.answer(&mut |payload| {
                if let Ok(list) = &mut elements {
                    match parse(payload) {
                        Ok(element) => list.extend(element),
                        Err(error) => elements = Err(error),
                    }
                }
            })?;
            if !answer.interrupted {
                return Ok(elements?);
            }
        }
        Err(Reason::refused(
            Errno::EAGAIN,
            Some("it changes all the time"),
        ))
    }

    /// Asks for several things at once; one of the requests, at least, must ask for an answer.
    pub(crate) fn batch(&mut self, requests: &[Request<impl Emitable>]) -> Result<(), Reason> {
        // All with one number: the first answer to any of them counts.
        self.sequence = self.sequence.wrapping_add(1);
        let messages = requests.iter().map(|request| {
            let flags = request.flags | NLM_F_REQUEST;
            message(request.kind, flags, self.sequence, &request.body)
        });
        let datagram = messages.collect::<Vec<_>>().concat();
        retry(|| self.socket.send(&datagram, 0))?;
        self.answer(&mut |_| ()).map(drop)
    }

    fn send(&mut self, kind: u16, flags: u16, body: &impl Emitable) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(kind, flags | NLM_F_REQUEST, self.sequence, body);
        // A datagram is sent as a whole.
        retry(|| self.socket.send(&message, 0)).map(drop)
    }

    /// Reads all of the answer to the last request; `take` gets each message's payload.
    fn answer(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<Answer, Reason> {
        let mut answer = Answer::default();
        while !answer.complete {
            self.receive()?;
            read(&self.buffer, self.sequence, &mut answer, take)?;
        }
        Ok(answer)
    }

    /// Receives a datagram, whatever its size.
    fn receive(&mut self) -> io::Result<()> {
        let Self { socket, buffer, .. } = self;
        buffer.clear();
        let length = retry(|| socket.recv(buffer, libc::MSG_PEEK | libc::MSG_TRUNC))?;
        buffer.clear();
        buffer.reserve(length);
        retry(|| socket.recv(buffer, 0)).map(drop)
    }
}

/// A whole message.
fn message(kind: u16, flags: u16, sequence: u32, body: &impl Emitable) -> Vec<u8> {
    let length = HEADER + body.buffer_len();
    let mut bytes = vec![0; length];
    let mut header = NetlinkHeader::default();
    // No message of ours comes near 4 GiB.
    header.length = length as u32;
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    header.emit(&mut bytes);
    body.emit(&mut bytes[HEADER..]);
    bytes
}

/// Reads the messages in a datagram up to the answer's end; `take` gets each one's payload.
fn read(
    datagram: &[u8],
    sequence: u32,
    answer: &mut Answer,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Reason> {
    let mut rest = datagram;
    while !rest.is_empty() && !answer.complete {
        let message = NetlinkBuffer::new_checked(rest)?;
        let length = message.length() as usize;
        let aligned = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(aligned..).unwrap_or_default();
        // Perhaps the rest of an answer that was given up.
        if message.sequence_number() != sequence {
            continue;
        }
        answer.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_NOOP => {}
            NLMSG_ERROR | NLMSG_DONE => {
                end(&message)?;
                answer.complete = true;
            }
            NLMSG_OVERRUN => return Err(Reason::refused(Errno::ENOBUFS, None)),
            _ => take(message.payload()),
        }
    }
    Ok(())
}

/// How it went, by the last message of an answer: `struct nlmsgerr`, or a list's end.
fn end(message: &NetlinkBuffer<&[u8]>) -> Result<(), Reason> {
    let payload = message.payload();
    let (code, mut rest) = payload
        .split_at_checked(CODE)
        .ok_or_else(|| DecodeError::from("an answer without a result"))?;
    let code = parse_i32(code)?;
    if code == 0 {
        return Ok(());
    }
    if message.message_type() == NLMSG_ERROR {
        // The header of the request.
        rest = rest.get(HEADER..).unwrap_or_default();
    }
    let explained = message.flags() & NLM_F_ACK_TLVS != 0;
    let explanation = explained.then(|| explanation(rest)).flatten();
    let errno = Errno::from_raw(code.saturating_neg());
    Err(Reason::refused(errno, explanation.as_deref()))
}

fn explanation(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok())
}

/// A signal is no reason to give up.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
#[path = "socket_test.rs"]
mod tests;
