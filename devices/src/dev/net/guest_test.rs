//! A guest's driver of a network device, and its host's end of the wire.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::*;
use crate::Memory;
use crate::device::{Activation, DeviceError, Token};
use crate::queue::VirtQueue;
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RINGS: u64 = 0x1_0000;
/// Where the buffers are; those of a queue have a mebibyte.
const BUFFERS: u64 = 1 << 20;
const PER_QUEUE: u64 = 1 << 20;

pub(super) struct Guest {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) memory: Arc<Memory>,
    pub(super) drivers: Vec<DriverQueue>,
    pub(super) queues: Vec<VirtQueue>,
    pub(super) watch: FakeWatch,
    /// The other ends, and what the taps were asked for.
    pub(super) wires: Vec<OwnedFd>,
    pub(super) requests: Vec<Requests>,
    pub(super) taps: Vec<i32>,
    next: Vec<u64>,
}

pub(super) fn config(queues: Vec<Tap>) -> Config {
    Config {
        name: "eth0".to_owned(),
        mac: MAC,
        mtu: 1500,
        queues,
        vhost: Vec::new(),
    }
}

/// A tap that is a socket, its other end, and what it is asked for.
pub(super) fn wire() -> (Tap, OwnedFd, Requests) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let (tap, requests) = Tap::fake(ours);
    (tap, theirs, requests)
}

impl Guest {
    /// With sockets for taps.
    pub(super) fn new(pairs: usize, features: u64) -> Self {
        let (mut taps, mut wires, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..pairs {
            let (tap, wire, noted) = wire();
            taps.push(tap);
            wires.push(wire);
            requests.push(noted);
        }
        let mut guest = Self::with_taps(taps, features);
        guest.wires = wires;
        guest.requests = requests;
        guest.start(features);
        guest
    }

    pub(super) fn with_taps(taps: Vec<Tap>, features: u64) -> Self {
        let fds = taps.iter().map(AsRawFd::as_raw_fd).collect();
        let device = new(config(taps)).unwrap();
        let mut guest = Self {
            device,
            memory: memory(16 << 20),
            drivers: Vec::new(),
            queues: Vec::new(),
            watch: FakeWatch::default(),
            wires: Vec::new(),
            requests: Vec::new(),
            taps: fds,
            next: Vec::new(),
        };
        guest.start(features);
        guest
    }

    /// As after a reset.
    pub(super) fn start(&mut self, features: u64) {
        self.device.stop();
        self.watch.watched.clear();
        self.requests.iter().for_each(|r| r.lock().unwrap().clear());
        let sizes = self.device.traits().queue_sizes;
        let driver = |(i, size): (u64, u16)| DriverQueue::new(&self.memory, i * RINGS, size);
        self.drivers = (0..).zip(sizes).map(driver).collect();
        self.next = vec![0; self.drivers.len()];
        let mut activation = Activation {
            memory: Arc::clone(&self.memory),
            features,
            queues: self.drivers.iter().map(|d| d.device_end(true)).collect(),
        };
        self.device.start(&mut activation, &mut self.watch).unwrap();
        self.queues = activation.queues;
    }

    pub(super) fn kick(&mut self, queue: usize) -> Result<(), DeviceError> {
        let _ = self.queues[queue].kick().read();
        self.device.kicked(queue, &mut self.queues, &mut self.watch)
    }

    pub(super) fn ready(&mut self, pair: u16, events: EventSet) -> Result<(), DeviceError> {
        self.device
            .ready(Token(pair), events, &mut self.queues, &mut self.watch)
    }

    /// What the loop would do until nothing happens: at most so many events.
    pub(super) fn settle(&mut self, most: usize) {
        for _ in 0..most {
            let mut quiet = true;
            for queue in 0..self.queues.len() {
                if self.queues[queue].kick().read().is_ok() {
                    quiet = false;
                    let (queues, watch) = (&mut self.queues, &mut self.watch);
                    self.device.kicked(queue, queues, watch).unwrap();
                }
            }
            for pair in 0..self.taps.len() {
                let always = EventSet::ERROR | EventSet::HANG_UP;
                let watched = self.watched(pair);
                if watched.is_empty() {
                    continue;
                }
                let happened = poll(self.taps[pair], 0) & (watched | always);
                if !happened.is_empty() {
                    quiet = false;
                    self.ready(pair as u16, happened).unwrap();
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the device does not come to rest");
    }

    /// What the device waits for of a tap.
    pub(super) fn watched(&self, pair: usize) -> EventSet {
        let watched = self.watch.watched.get(&self.taps[pair]);
        watched.map_or(EventSet::empty(), |(_, events)| *events)
    }

    pub(super) fn allocate(&mut self, queue: usize, length: usize) -> u64 {
        let at = self.next[queue] % (PER_QUEUE - (128 << 10));
        self.next[queue] = at + length as u64;
        BUFFERS + queue as u64 * PER_QUEUE + at
    }

    /// Puts a packet, header included, into a transmit queue, in pieces of these lengths.
    pub(super) fn send(&mut self, queue: usize, packet: &[u8], pieces: &[usize]) -> u16 {
        let mut rest = packet;
        let mut buffers = Vec::new();
        for &length in pieces.iter().chain([&usize::MAX]) {
            let (piece, others) = rest.split_at(length.min(rest.len()));
            rest = others;
            if !piece.is_empty() {
                let address = self.allocate(queue, piece.len());
                self.memory
                    .write_slice(piece, GuestAddress(address))
                    .unwrap();
                buffers.push(buffer(address, piece.len(), false));
            }
        }
        self.drivers[queue].add(&buffers)
    }

    /// Makes a chain of buffers of these lengths available for packets.
    pub(super) fn provide(&mut self, queue: usize, lengths: &[usize]) -> u16 {
        let buffers: Vec<_> = lengths
            .iter()
            .map(|&length| buffer(self.allocate(queue, length), length, true))
            .collect();
        self.queues[queue].kick().write(1).unwrap();
        self.drivers[queue].add(&buffers)
    }

    /// The next packet that the guest has got, taken together from as many chains of one buffer as
    /// its header says; all of them are there at once.
    pub(super) fn receive(&mut self, queue: usize) -> Option<Vec<u8>> {
        let (head, length) = self.drivers[queue].used()?;
        let mut packet = self.drivers[queue].contents(head, length);
        let buffers = u16::from_le_bytes([packet[10], packet[11]]);
        for _ in 1..buffers {
            let (head, length) = self.drivers[queue].used().expect("a packet in parts");
            packet.extend(self.drivers[queue].contents(head, length));
        }
        packet[10] = 0;
        packet[11] = 0;
        Some(packet)
    }

    pub(super) fn to_tap(&self, pair: usize, packet: &[u8]) {
        let sent = send(self.wires[pair].as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT);
        assert_eq!(sent, Ok(packet.len()));
    }

    pub(super) fn at_tap(&self, pair: usize) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2 * MAX_PACKET];
        let fd = self.wires[pair].as_raw_fd();
        let length = recv(fd, &mut packet, MsgFlags::MSG_DONTWAIT).ok()?;
        packet.truncate(length);
        Some(packet)
    }

    /// Sends a command, and returns the answer: 255 if there is none.
    pub(super) fn command(&mut self, queue: usize, command: &[u8]) -> u8 {
        let (at, ack) = (self.allocate(queue, command.len()), self.allocate(queue, 1));
        self.memory.write_slice(command, GuestAddress(at)).unwrap();
        self.memory.write_obj(255_u8, GuestAddress(ack)).unwrap();
        let buffers = [buffer(at, command.len(), false), buffer(ack, 1, true)];
        self.drivers[queue].add(&buffers);
        self.kick(queue).unwrap();
        assert_eq!(
            self.drivers[queue].used().map(|(_, length)| length),
            Some(1)
        );
        self.memory.read_obj(GuestAddress(ack)).unwrap()
    }
}

pub(super) fn buffer(address: u64, length: usize, writable: bool) -> Buffer {
    Buffer {
        address,
        length: length as u32,
        writable,
    }
}

/// A packet of so many bytes behind an empty header, in which a loss or an exchange shows.
pub(super) fn packet(length: usize, seed: u8) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet.extend((0..length).map(|i| (i ^ i >> 8 ^ i >> 15) as u8 ^ seed));
    packet
}

/// Which of these are there, after waiting for the first of them.
pub(super) fn poll(fd: i32, milliseconds: u16) -> EventSet {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::BorrowedFd;
    #[allow(unsafe_code)]
    // SAFETY: the device keeps its taps open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut wanted = PollFlags::POLLIN;
    wanted.set(PollFlags::POLLOUT, milliseconds == 0);
    let mut polled = [PollFd::new(fd, wanted)];
    poll(&mut polled, PollTimeout::from(milliseconds)).unwrap();
    let events = polled[0].revents().unwrap();
    EventSet::from_bits_truncate(events.bits() as u32)
}
