//! From chains of descriptors to requests, and from answers into them.

use std::io::{self, Read as _, Write as _};

use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::passthrough::PassthroughFs;
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use vm_memory::{Address, Bytes};

use super::Config;
use super::data::{DATA, Read};
use super::fid::Tree;
use super::session::Session;
use super::wire::{Answer, Body, HEADER, MAX_BODY, RLERROR, errno, request};
use crate::dev::share::{Checked, Files, Protocol, most_files};
use crate::device::DeviceError;
use crate::queue::Chain;

/// Room that every answer needs: an error takes that much.
const LEAST_ROOM: usize = HEADER + 4;
/// `fid[4] offset[8] count[4]`, behind which the data of a WRITE are.
const WRITE: usize = 16;

/// One shared directory with the state of the guest's session.
pub(super) enum P9 {
    Writable(Session<Checked<PassthroughFs>>),
    ReadOnly(Session<Checked<PassthroughFsRo>>),
}

impl P9 {
    /// Shares the directory from this thread, which can reach nothing else afterwards.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        // Some of them lead to the same file: each user has one of its own.
        let most = most_files(&config.share)?.saturating_mul(2);
        let append = config.append_at_end;
        Ok(match Files::open(&config.share)? {
            Files::Writable(files) => Self::Writable(Session::new(files, most, append)),
            Files::ReadOnly(files) => Self::ReadOnly(Session::new(files, most, append)),
        })
    }
}

impl Protocol for P9 {
    fn handle(&self, chain: Chain) -> Result<u32, DeviceError> {
        match self {
            Self::Writable(session) => handle(session, chain),
            Self::ReadOnly(session) => handle(session, chain),
        }
    }

    fn waits_for_earlier(&self, chain: &Chain) -> bool {
        is_flush(chain)
    }

    fn end(&self) {
        match self {
            Self::Writable(session) => session.tree.end(),
            Self::ReadOnly(session) => session.tree.end(),
        }
    }

    fn forget(&self) {
        match self {
            Self::Writable(session) => {
                session.forget();
                session.tree.restart();
            }
            Self::ReadOnly(session) => {
                session.forget();
                session.tree.restart();
            }
        }
    }
}

/// Linux frees the request that it has given up on when this one is answered. The first descriptor has the
/// whole header: another message is none of Linux'.
fn is_flush(chain: &Chain) -> bool {
    let header = chain.clone().readable().next();
    let kind = header
        .filter(|header| header.len() as usize >= HEADER)
        .and_then(|header| header.addr().checked_add(4))
        .and_then(|address| chain.memory().read_obj::<u8>(address).ok());
    kind == Some(request::FLUSH)
}

/// A request: what it is, and where its parts are.
struct Message<'a> {
    kind: u8,
    tag: u16,
    body: Reader<'a>,
    room: Writer<'a>,
}

fn handle<F: Tree>(session: &Session<F>, chain: Chain) -> Result<u32, DeviceError> {
    let memory = chain.clone();
    let mut message = Message::new(memory.memory(), chain, session.limit())?;
    let (kind, tag) = (message.kind, message.tag);
    let answer = match kind {
        request::READ => match message.read(session) {
            Ok(length) => return Ok(length),
            Err(error) => Err(error),
        },
        request::WRITE => message.write(session),
        _ => message
            .body()
            .and_then(|body| session.execute(kind, Body(&body))),
    };
    let (kind, body) = match answer {
        Ok(answer) => (kind.wrapping_add(1), answer),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(libc::EIO);
            (RLERROR, Answer::default().u32(number as u32).done())
        }
    };
    send(&mut message.room, (kind, tag), &body.0, body.0.len())
}

impl<'a> Message<'a> {
    fn new(memory: &'a crate::Memory, chain: Chain, limit: u32) -> Result<Self, DeviceError> {
        let mut body = Reader::new(memory, chain.clone()).map_err(driver)?;
        let room = Writer::new(memory, chain).map_err(driver)?;
        let mut header = [0; HEADER];
        body.read_exact(&mut header)
            .map_err(|_| driver("a request is shorter than its header"))?;
        let [a, b, c, d, kind, tag @ ..] = header;
        let size = u32::from_le_bytes([a, b, c, d]);
        let length = (size as usize).checked_sub(HEADER);
        let length = length.filter(|length| *length <= body.available_bytes() && size <= limit);
        let length = length.ok_or_else(|| driver("a request has a length that it cannot have"))?;
        if room.available_bytes() < LEAST_ROOM {
            return Err(driver("a request has no room for its answer"));
        }
        // What is behind the message is not part of it.
        body.split_at(length).map_err(driver)?;
        let tag = u16::from_le_bytes(tag);
        Ok(Self {
            kind,
            tag,
            body,
            room,
        })
    }

    /// The body of a request without data, copied, so that the guest cannot change it any more.
    fn body(&mut self) -> io::Result<Vec<u8>> {
        let length = self.body.available_bytes();
        if length > MAX_BODY {
            return Err(errno(libc::EMSGSIZE));
        }
        let mut body = vec![0; length];
        self.body.read_exact(&mut body)?;
        Ok(body)
    }

    /// Returns the length of the answer.
    fn read<F: Tree>(&mut self, session: &Session<F>) -> io::Result<u32> {
        let body = self.body()?;
        let mut data = self.room.split_at(DATA).map_err(io::Error::other)?;
        let read = session.read(Body(&body), &mut data)?;
        let count = match read {
            Read::There(count) => count,
            Read::Here(bytes) => {
                data.write_all(&bytes)?;
                bytes.len()
            }
        };
        let kind = request::READ + 1;
        let front = (count as u32).to_le_bytes();
        let length = front.len() + count;
        send(&mut self.room, (kind, self.tag), &front, length).map_err(io::Error::other)
    }

    fn write<F: Tree>(&mut self, session: &Session<F>) -> io::Result<Answer> {
        let mut body = [0; WRITE];
        let is_short = self.body.available_bytes() < WRITE;
        if is_short {
            return Err(errno(libc::EINVAL));
        }
        self.body.read_exact(&mut body)?;
        session.write(Body(&body), &mut self.body)
    }
}

/// Sends `body`, the front of `length` bytes, behind its header. Returns the length of all.
fn send(
    room: &mut Writer<'_>,
    (kind, tag): (u8, u16),
    body: &[u8],
    length: usize,
) -> Result<u32, DeviceError> {
    let size = (HEADER + length) as u32;
    let mut message = Answer::default();
    message.u32(size).u8(kind).u16(tag).0.extend(body);
    if message.0.len() > room.available_bytes() {
        return Err(driver("a request has too little room for its answer"));
    }
    room.write_all(&message.0).map_err(driver)?;
    Ok(size)
}

fn driver(error: impl std::fmt::Display) -> DeviceError {
    DeviceError::Driver(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DriverQueue, memory};

    #[test]
    fn a_flush_comes_after_what_it_may_be_about() {
        let mut driver = DriverQueue::new(&memory(1 << 20), 0, 16);
        let mut queue = driver.device_end(false);
        let mut waits = |message: &[u8]| {
            driver.send(message);
            is_flush(&queue.next_chain().unwrap().unwrap())
        };
        let header = |kind| [9, 0, 0, 0, kind, 1, 0, 5, 0];
        assert!(waits(&header(request::FLUSH)));
        assert!(!waits(&header(request::READ)));
        assert!(!waits(&header(request::FLUSH)[..6]));
    }
}
