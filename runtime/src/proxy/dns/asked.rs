//! One query to the resolver, which is waited for by poll(2).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use proto::dns::{self, DnsQuery};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// A query that is under way.
pub(super) struct Asked {
    query: DnsQuery,
    /// A connected socket, which read(2) and write(2) serve as well.
    pub(super) socket: File,
    unsent: Vec<u8>,
    /// Over TCP: what came, with the message's length before it.
    received: Vec<u8>,
    pub(super) deadline: Instant,
}

impl Asked {
    /// Connects a new socket, which never blocks.
    pub(super) fn new(
        query: DnsQuery,
        resolver: SocketAddr,
        deadline: Instant,
    ) -> io::Result<Self> {
        let (kind, mut unsent) = if query.stream {
            let length = u16::try_from(query.message.len()).map_err(|_| ErrorKind::InvalidInput)?;
            (SocketType::STREAM, length.to_be_bytes().to_vec())
        } else {
            (SocketType::DGRAM, Vec::new())
        };
        unsent.extend_from_slice(&query.message);
        let family = match resolver {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, kind, flags, None)?;
        match connect(&socket, &resolver) {
            // Then it becomes writable.
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self {
                query,
                socket: socket.into(),
                unsent,
                received: Vec::new(),
                deadline,
            }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.query.id
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        }
    }

    /// Goes on as far as it can; the answer, once it is there. `buffer` has room for any datagram.
    ///
    /// # Errors
    /// When no answer will come.
    pub(super) fn proceed(&mut self, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        if !self.unsent.is_empty() {
            let Some(count) = unless_blocked(self.socket.write(&self.unsent))? else {
                return Ok(None);
            };
            self.unsent.drain(..count);
        }
        if !self.unsent.is_empty() {
            return Ok(None);
        }
        let Some(count) = unless_blocked(self.socket.read(buffer))? else {
            return Ok(None);
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if self.query.stream {
            return self.receive(bytes);
        }
        let is_answer = dns::answers(&self.query.message, bytes);
        Ok(is_answer.then(|| bytes.to_vec()))
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if bytes.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(bytes);
        let Some((length, rest)) = self.received.split_first_chunk() else {
            return Ok(None);
        };
        match rest.get(..usize::from(u16::from_be_bytes(*length))) {
            None => Ok(None),
            Some(answer) if dns::answers(&self.query.message, answer) => Ok(Some(answer.to_vec())),
            Some(_) => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// None if it has to be tried again later.
pub(super) fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
