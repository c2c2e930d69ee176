//! A connection between a program of the host, at a Unix socket, and one of the guest.
//!
//! It begins when the program comes. Bytes are moved straight between socket and guest memory; what
//! a program does not take at once is kept, in a number that is bounded by the guest's credit.

mod incoming;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use super::credit::Credit;
use super::listener::{Greeting, Heard};
use super::packet::{NO_RECEIVE, NO_SEND, Packet, STREAM, operation};
use super::program::Program;
use super::room::{MAX_DATA, Room};

/// How far a connection has come.
#[derive(Debug)]
enum State {
    /// The program has not said yet where it wants to.
    Greeting(Greeting),
    /// The guest is to be asked, then has been asked.
    Asking,
    Asked,
    /// It has accepted.
    Open,
    /// It knows of the connection no more, but the program has not taken all yet.
    Lingering,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// It stays on the host's side alone: the guest is told that it is gone.
    Leaves,
    /// It ends, and the guest is told.
    Resets,
    /// It ends, and the guest knows, or never knew.
    Ends,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    program: Program,
    state: State,
    guest_port: u32,
    host_port: u32,
    credit: Credit,
    /// There may be bytes to read.
    readable: bool,
    /// The program sends no more, or the guest receives no more.
    ended: bool,
    /// What the guest said of its own end, what it has to hear of ours, and of that has heard.
    guest_shutdown: u32,
    shutdown: u32,
    told: u32,
    /// The guest wants to hear of its credit; it is to be asked for ours, once for each shortage.
    asked_for_credit: bool,
    ask_for_credit: bool,
    short: bool,
    /// What the event loop was asked to tell of.
    pub(super) watched: Option<EventSet>,
    /// It is in the row of those that have packets for the guest.
    pub(super) queued: bool,
}

impl Connection {
    /// For a program that has just come.
    pub(super) fn new(stream: UnixStream, host_port: u32) -> Self {
        Self {
            program: Program::new(stream),
            state: State::Greeting(Greeting::default()),
            guest_port: 0,
            host_port,
            credit: Credit::default(),
            readable: false,
            ended: false,
            guest_shutdown: 0,
            shutdown: 0,
            told: 0,
            asked_for_credit: false,
            ask_for_credit: false,
            short: false,
            watched: None,
            queued: false,
        }
    }

    /// Ports of the host and of the guest, if the guest knows of the connection.
    pub(super) fn known_ports(&self) -> Option<(u32, u32)> {
        let known = matches!(self.state, State::Asked | State::Open);
        known.then_some((self.host_port, self.guest_port))
    }

    pub(super) fn host_port(&self) -> u32 {
        self.host_port
    }

    /// Whether it may go when others need its place: the program has not said what it wants, or is
    /// gone and the guest has heard.
    pub(super) fn is_idle(&self) -> bool {
        let gone = self.program.is_deaf() && self.told == NO_RECEIVE | NO_SEND;
        gone || matches!(self.state, State::Greeting(_))
    }

    /// What is to be heard of the socket.
    pub(super) fn wanted(&self) -> Option<EventSet> {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::OUT, !self.program.has_all());
        match self.state {
            State::Greeting(_) => wanted.insert(EventSet::IN),
            // Whether the program is still there.
            State::Asking | State::Asked => return Some(wanted),
            State::Open if self.ended => return (!self.program.is_deaf()).then_some(wanted),
            State::Open => wanted.set(EventSet::IN, !self.readable),
            State::Lingering => {}
        }
        // A program that is gone would be heard of without end.
        (!wanted.is_empty()).then_some(wanted)
    }

    /// Something happened to the socket; the events are a hint only.
    pub(super) fn ready(&mut self, events: EventSet) -> Fate {
        let gone =
            events.intersects(EventSet::HANG_UP | EventSet::ERROR) && self.program.is_hung_up();
        match &mut self.state {
            State::Greeting(greeting) => match greeting.hear(self.program.stream()) {
                Heard::Part => {}
                Heard::Port(port) => {
                    self.guest_port = port;
                    self.state = State::Asking;
                }
                Heard::Nonsense => return Fate::Ends,
            },
            State::Asking | State::Asked if gone => return Fate::Resets,
            State::Open if !self.ended => {
                self.readable = true;
                self.notice_shortage();
            }
            State::Open if gone => self.lose_program(),
            _ => {}
        }
        if !self.program.has_all() {
            self.flush();
        }
        let done = self.program.has_all() && matches!(self.state, State::Lingering);
        if done { Fate::Ends } else { Fate::Stays }
    }

    /// Whether [`Self::send`] has something to send.
    pub(super) fn has_packets(&self) -> bool {
        let unsaid = self.asked_for_credit
            || self.ask_for_credit
            || self.credit.has_news()
            || self.shutdown & !self.told != 0
            || self.readable && self.credit.guest_room() > 0;
        match self.state {
            State::Asking => true,
            State::Open => unsaid,
            _ => false,
        }
    }

    /// The next packet for the guest, but for its addresses; its data are in `room`.
    ///
    /// # Errors
    /// When the socket fails.
    pub(super) fn send(&mut self, room: &mut Room<'_>) -> io::Result<Option<Packet>> {
        if matches!(self.state, State::Asking) {
            self.state = State::Asked;
            return Ok(Some(self.packet(operation::REQUEST)));
        }
        if !self.has_packets() {
            return Ok(None);
        }
        let length = self.read(room)?;
        self.notice_shortage();
        let unsaid = self.shutdown & !self.told;
        let (operation, flags) = if length > 0 {
            (operation::RW, 0)
        } else if std::mem::take(&mut self.ask_for_credit) {
            (operation::CREDIT_REQUEST, 0)
        } else if unsaid != 0 {
            self.told = self.shutdown;
            (operation::SHUTDOWN, self.shutdown)
        } else if self.asked_for_credit || self.credit.has_news() {
            (operation::CREDIT_UPDATE, 0)
        } else {
            return Ok(None);
        };
        let mut packet = self.packet(operation);
        packet.length = length;
        packet.flags = flags;
        Ok(Some(packet))
    }

    /// The packet that ends the connection for the guest, if it knows of it.
    pub(super) fn reset(&mut self) -> Option<Packet> {
        let known = self.known_ports().is_some();
        known.then(|| self.packet(operation::RST))
    }

    /// The guest is told that the connection is gone; it ends when the program has taken all.
    pub(super) fn linger(&mut self) {
        self.state = State::Lingering;
    }

    fn packet(&mut self, operation: u16) -> Packet {
        self.asked_for_credit = false;
        let (buf_alloc, fwd_cnt) = self.credit.tell();
        let mut packet = Packet {
            kind: STREAM,
            operation,
            buf_alloc,
            fwd_cnt,
            ..Packet::default()
        };
        packet.source.port = self.host_port;
        packet.destination.port = self.guest_port;
        packet
    }

    /// Reads what the guest has credit for. Returns 0 if there is nothing.
    fn read(&mut self, room: &mut Room<'_>) -> io::Result<u32> {
        let limit = MAX_DATA.min(self.credit.guest_room() as usize);
        if !self.readable || limit == 0 {
            return Ok(0);
        }
        match self.program.read(room, limit) {
            Ok(0) => {
                self.readable = false;
                self.ended = true;
                self.shutdown |= NO_SEND;
                if self.program.is_hung_up() {
                    self.lose_program();
                }
                Ok(0)
            }
            Ok(count) => {
                // At most MAX_DATA.
                self.credit.send(count as u32);
                Ok(count as u32)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for credit if it is what the program's bytes wait for (section 5.10.6.3).
    fn notice_shortage(&mut self) {
        let short = self.readable && self.credit.guest_room() == 0;
        self.ask_for_credit |= short && !self.short;
        self.short = short;
    }

    /// Writes what is kept for the program, as far as it takes it.
    fn flush(&mut self) {
        let gone = self.program.flush();
        self.forward(gone);
    }

    /// So many of the guest's bytes are kept no more; nor will others be, if the program takes none.
    fn forward(&mut self, count: usize) {
        // They are at most as many as the guest has credit for, which is 32 bits.
        self.credit.forward(count as u32);
        if self.program.is_deaf() {
            self.shutdown |= NO_RECEIVE;
        }
    }

    /// The program is gone, and all of its bytes are read.
    fn lose_program(&mut self) {
        self.program.lose();
        self.shutdown = NO_RECEIVE | NO_SEND;
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.program.as_raw_fd()
    }
}
