//! A guest's driver of a socket device in user space, and programs of the host.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::packet::{Address, HEADER, HOST, Packet, STREAM, operation};
use super::*;
use crate::Memory;
use crate::device::{Activation, DeviceError};
use crate::queue::VirtQueue;
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

pub(super) const CID: u32 = 77;
const RINGS: u64 = 0x1_0000;
/// Where the buffers are; those of a queue have four mebibytes.
const BUFFERS: u64 = 4 << 20;
const PER_QUEUE: u64 = 4 << 20;
/// What a guest says that it has room for.
pub(super) const ROOM: u32 = 256 << 10;

pub(super) struct Guest {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) memory: Arc<Memory>,
    pub(super) drivers: Vec<DriverQueue>,
    pub(super) queues: Vec<VirtQueue>,
    pub(super) watch: FakeWatch,
    /// Packets that were received and not looked at yet.
    got: VecDeque<(Packet, Vec<u8>)>,
    next: Vec<u64>,
    folder: TempDir,
}

/// A connection as the guest knows it.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

impl Guest {
    /// With `buffers` of 4 KiB for packets.
    pub(super) fn new(buffers: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("vsock")).unwrap();
        let backend = Backend::User(listener);
        let mut guest = Self {
            device: new(Config { cid: CID, backend }).unwrap(),
            memory: memory(32 << 20),
            drivers: Vec::new(),
            queues: Vec::new(),
            watch: FakeWatch::default(),
            got: VecDeque::new(),
            next: Vec::new(),
            folder,
        };
        guest.start();
        guest.provide(buffers);
        guest
    }

    /// As after a reset.
    pub(super) fn start(&mut self) {
        self.device.stop();
        self.watch.watched.clear();
        self.got.clear();
        let sizes = self.device.traits().queue_sizes;
        let driver = |(i, size): (u64, u16)| DriverQueue::new(&self.memory, i * RINGS, size);
        self.drivers = (0..).zip(sizes).map(driver).collect();
        self.next = vec![0; self.drivers.len()];
        let mut activation = Activation {
            memory: Arc::clone(&self.memory),
            features: 0,
            queues: self.drivers.iter().map(|d| d.device_end(true)).collect(),
        };
        self.device.start(&mut activation, &mut self.watch).unwrap();
        self.queues = activation.queues;
    }

    pub(super) fn kick(&mut self, queue: usize) -> Result<(), DeviceError> {
        let _ = self.queues[queue].kick().read();
        self.device.kicked(queue, &mut self.queues, &mut self.watch)
    }

    /// What the loop would do until nothing happens.
    pub(super) fn settle(&mut self) {
        for _ in 0..20_000 {
            if !self.turn().unwrap() {
                return;
            }
        }
        panic!("the device does not come to rest");
    }

    /// Whether something happened.
    pub(super) fn turn(&mut self) -> Result<bool, DeviceError> {
        let mut busy = false;
        for queue in 0..self.queues.len() {
            if self.queues[queue].kick().read().is_ok() {
                busy = true;
                let (queues, watch) = (&mut self.queues, &mut self.watch);
                self.device.kicked(queue, queues, watch)?;
            }
        }
        let fds: Vec<_> = self.watch.watched.keys().copied().collect();
        for fd in fds {
            // An earlier one may have ended this one.
            let Some(&(token, events)) = self.watch.watched.get(&fd) else {
                continue;
            };
            let happened = poll(fd) & (events | EventSet::ERROR | EventSet::HANG_UP);
            if !happened.is_empty() {
                busy = true;
                let (queues, watch) = (&mut self.queues, &mut self.watch);
                self.device.ready(token, happened, queues, watch)?;
            }
        }
        Ok(busy)
    }

    fn allocate(&mut self, queue: usize, length: usize) -> u64 {
        let at = self.next[queue] % (PER_QUEUE - (256 << 10));
        self.next[queue] = at + length as u64;
        BUFFERS + queue as u64 * PER_QUEUE + at
    }

    /// Puts a chain of buffers of these lengths into the queue of packets to the guest.
    pub(super) fn provide_chain(&mut self, lengths: &[usize]) {
        let buffers: Vec<_> = lengths
            .iter()
            .map(|&length| buffer(self.allocate(RX, length), length, true))
            .collect();
        self.drivers[RX].add(&buffers);
        self.queues[RX].kick().write(1).unwrap();
    }

    pub(super) fn provide(&mut self, buffers: usize) {
        for _ in 0..buffers {
            self.provide_chain(&[4096]);
        }
    }

    /// Puts a packet into the queue, in pieces of these lengths.
    pub(super) fn send_raw(&mut self, header: &[u8], data: &[u8], pieces: &[usize]) {
        let whole = [header, data].concat();
        let mut rest = &whole[..];
        let mut buffers = Vec::new();
        for &length in pieces.iter().chain([&usize::MAX]) {
            let (piece, others) = rest.split_at(length.min(rest.len()));
            rest = others;
            if !piece.is_empty() {
                let address = self.allocate(TX, piece.len());
                let at = GuestAddress(address);
                self.memory.write_slice(piece, at).unwrap();
                buffers.push(buffer(address, piece.len(), false));
            }
        }
        self.drivers[TX].add(&buffers);
        self.queues[TX].kick().write(1).unwrap();
    }

    /// Sends a packet of a connection, with room for [`ROOM`] bytes.
    pub(super) fn send(&mut self, ports: Ports, operation: u16, data: &[u8]) {
        let mut packet = packet(ports, operation);
        packet.length = data.len() as u32;
        self.send_raw(&packet.bytes(), data, &[HEADER]);
    }

    /// The next packet to the guest, after a while without one none; its buffer is provided again.
    pub(super) fn receive(&mut self) -> Option<(Packet, Vec<u8>)> {
        self.settle();
        while let Some((head, length)) = self.drivers[RX].used() {
            let bytes = self.drivers[RX].contents(head, length);
            let (header, data) = bytes.split_first_chunk().unwrap();
            let packet = Packet::parse(header);
            assert_eq!(packet.length as usize, data.len());
            assert_eq!(
                (packet.source.cid, packet.destination.cid),
                (HOST, CID.into())
            );
            self.got.push_back((packet, data.to_vec()));
            self.provide(1);
        }
        self.got.pop_front()
    }

    /// The next packet, which has to be this and without data.
    #[track_caller]
    pub(super) fn expect(&mut self, operation: u16) -> Packet {
        let (packet, data) = self.receive().expect("a packet");
        assert_eq!((packet.operation, data.len()), (operation, 0), "{packet:?}");
        packet
    }

    #[track_caller]
    pub(super) fn expect_nothing(&mut self) {
        assert_eq!(self.receive(), None);
    }

    /// A program that has come and said `line`.
    pub(super) fn program(&self, line: &str) -> UnixStream {
        let path = self.folder.path().join("vsock");
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// A program that the guest is asked about.
    #[track_caller]
    pub(super) fn ask(&mut self, port: u32) -> (UnixStream, Ports) {
        let program = self.program(&format!("CONNECT {port}\n"));
        let request = self.expect(operation::REQUEST);
        assert_eq!((request.destination.port, request.kind), (port, STREAM));
        assert_ne!(request.buf_alloc, 0);
        let ports = Ports {
            host: request.source.port,
            guest: port,
        };
        (program, ports)
    }

    /// A program and the guest's end of its connection.
    #[track_caller]
    pub(super) fn connect(&mut self, port: u32) -> (UnixStream, Ports) {
        let (mut program, ports) = self.ask(port);
        self.send(ports, operation::RESPONSE, &[]);
        self.settle();
        let expected = format!("OK {}\n", ports.host);
        assert_eq!(read(&mut program), expected.as_bytes());
        (program, ports)
    }
}

pub(super) fn packet(ports: Ports, operation: u16) -> Packet {
    Packet {
        source: Address {
            cid: CID.into(),
            port: ports.guest,
        },
        destination: Address {
            cid: HOST,
            port: ports.host,
        },
        kind: STREAM,
        operation,
        buf_alloc: ROOM,
        ..Packet::default()
    }
}

pub(super) fn buffer(address: u64, length: usize, writable: bool) -> Buffer {
    Buffer {
        address,
        length: length as u32,
        writable,
    }
}

/// Bytes in which a loss or an exchange shows.
pub(super) fn pattern(from: usize, length: usize) -> Vec<u8> {
    let byte = |i: usize| (i ^ i >> 8 ^ i >> 16) as u8;
    (from..from + length).map(byte).collect()
}

/// What the program can read now.
pub(super) fn read(program: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count) = program.read(&mut piece) {
        if count == 0 {
            break;
        }
        bytes.extend(&piece[..count]);
    }
    bytes
}

/// Whether the program hears that nothing more comes.
pub(super) fn is_at_end(program: &mut UnixStream) -> bool {
    matches!(program.read(&mut [0]), Ok(0))
}

fn poll(fd: i32) -> EventSet {
    use std::os::fd::BorrowedFd;
    #[allow(unsafe_code)]
    // SAFETY: the device keeps open what it watches.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN | PollFlags::POLLOUT)];
    nix::poll::poll(&mut polled, PollTimeout::ZERO).unwrap();
    let events = polled[0].revents().unwrap();
    assert!(!events.contains(PollFlags::POLLNVAL), "closed and watched");
    EventSet::from_bits_truncate(events.bits() as u32)
}
