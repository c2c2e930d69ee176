//! The console on a real event loop: much data in both directions through each kind of stream, with
//! ends that are slower and faster than the guest.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::queues::{RECEIVE_SIZE, TRANSMIT_SIZE};
use super::*;
use crate::event_loop::{EventLoop, Stopper, add_device};
use crate::testing::{Buffer, DriverQueue, memory};

const RECEIVE: usize = 4;
const TRANSMIT: usize = 5;
/// Where the buffers of the two directions are.
const ROOM: u64 = 4 << 20;
const DATA: u64 = 8 << 20;
const CHUNK: u32 = 32 << 10;

struct Guest {
    memory: Arc<crate::Memory>,
    drivers: Vec<DriverQueue>,
    kicks: Vec<EventFd>,
    calls: Vec<EventFd>,
    stopper: Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Guest {
    fn new(streams: Streams, event_idx: bool) -> Self {
        let console = Console::new(Config {
            console: Streams::default(),
            ports: vec![NamedPort {
                name: "port".to_owned(),
                streams,
            }],
            size: ConsoleHandle::new(0, 0).unwrap(),
        });
        let console = Box::new(console.unwrap());
        let memory = memory(16 << 20);
        let place = |(i, size): (u64, u16)| DriverQueue::new(&memory, i << 16, size);
        let drivers: Vec<_> = (0..).zip(console.traits().queue_sizes).map(place).collect();
        let queues: Vec<_> = drivers.iter().map(|d| d.device_end(event_idx)).collect();
        let kicks = queues.iter().map(|q| q.kick().try_clone().unwrap());
        let calls = queues.iter().map(|q| q.call().try_clone().unwrap());
        let (kicks, calls) = (kicks.collect(), calls.collect());
        let mut events = EventLoop::new().unwrap();
        let handle = add_device(&mut events, console).unwrap();
        handle.start(Activation {
            memory: Arc::clone(&memory),
            features: 1 << VIRTIO_CONSOLE_F_MULTIPORT,
            queues,
        });
        let stopper = events.stopper();
        let thread = thread::spawn(move || {
            events.run().unwrap();
            events.drain().unwrap();
        });
        Self {
            memory,
            drivers,
            kicks,
            calls,
            stopper,
            thread: Some(thread),
        }
    }

    fn say(&mut self, event: u8, value: u8) {
        self.drivers[CONTROL_TRANSMIT].send(&[1, 0, 0, 0, event, 0, value, 0]);
        self.kicks[CONTROL_TRANSMIT].write(1).unwrap();
    }

    /// Waits for an interrupt of `queue`, having asked for one at the `used`-th chain.
    fn used(&mut self, queue: usize, used: u16) -> (u32, u32) {
        loop {
            self.drivers[queue].set_used_event(used);
            if let Some(chain) = self.drivers[queue].used() {
                return chain;
            }
            let epoll = Epoll::new().unwrap();
            let event = EpollEvent::new(EventSet::IN, 0);
            let fd = self.calls[queue].as_raw_fd();
            epoll.ctl(ControlOperation::Add, fd, event).unwrap();
            assert_eq!(epoll.wait(20_000, &mut [event]).unwrap(), 1, "stalled");
            self.calls[queue].read().unwrap();
        }
    }

    fn transmit(&mut self, data: &[u8]) {
        let slots = u64::from(TRANSMIT_SIZE);
        let mut answered = 0u16;
        for (i, chunk) in (0u64..).zip(data.chunks(CHUNK as usize)) {
            if i >= slots {
                self.used(TRANSMIT, answered);
                answered = answered.wrapping_add(1);
            }
            let address = DATA + i % slots * u64::from(CHUNK);
            self.memory
                .write_slice(chunk, GuestAddress(address))
                .unwrap();
            self.drivers[TRANSMIT].add(&[Buffer {
                address,
                length: chunk.len() as u32,
                writable: false,
            }]);
            self.kicks[TRANSMIT].write(1).unwrap();
        }
    }

    fn receive(&mut self, length: usize) -> Vec<u8> {
        let slots = u64::from(RECEIVE_SIZE);
        let mut data = Vec::new();
        let mut given = 0u64;
        let mut taken = 0u64;
        while data.len() < length {
            while given < taken + slots {
                self.drivers[RECEIVE].add(&[Buffer {
                    address: ROOM + given % slots * 4096,
                    length: 4096,
                    writable: true,
                }]);
                given += 1;
            }
            self.kicks[RECEIVE].write(1).unwrap();
            let (_, count) = self.used(RECEIVE, taken as u16);
            let mut part = vec![0; count as usize];
            let address = GuestAddress(ROOM + taken % slots * 4096);
            self.memory.read_slice(&mut part, address).unwrap();
            data.extend(part);
            taken += 1;
        }
        data
    }

    fn finish(mut self) {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Bytes in which a loss or an exchange shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|i| (i ^ i >> 8 ^ i >> 15) as u8)
        .collect()
}

/// A port between `inside`, which it gets, and `outside`, which is the other end.
fn flows(inside: [OwnedFd; 2], outside: [OwnedFd; 2], length: usize, event_idx: bool) {
    let [input, output] = inside;
    let [to_guest, from_guest] = outside.map(File::from);
    let streams = Streams {
        input: Some(Input::new(input).unwrap()),
        output: Some(Output::new(output).unwrap()),
    };
    let mut guest = Guest::new(streams, event_idx);
    guest.say(6, 1);
    let data = pattern(length);

    // Reads little at a time, much at a time, until the end.
    let reader = thread::spawn(move || {
        let mut from_guest = from_guest;
        let mut got = Vec::<u8>::new();
        let mut part = vec![0; 100_000];
        while got.len() < length {
            let most = [1000, 100_000, 10][got.len() % 3];
            let count = from_guest.read(&mut part[..most]).unwrap();
            got.extend(&part[..count]);
        }
        got
    });
    guest.transmit(&data);
    let sent = data.clone();
    let writer = thread::spawn(move || {
        let mut to_guest = to_guest;
        for chunk in sent.chunks(7777) {
            to_guest.write_all(chunk).unwrap();
        }
        to_guest
    });
    assert!(guest.receive(length) == data);
    let _to_guest = writer.join().unwrap();
    assert!(reader.join().unwrap() == data);
    guest.finish();
}

#[test]
fn through_pipes() {
    for event_idx in [false, true] {
        let (input, to_guest) = pipe().unwrap();
        let (from_guest, output) = pipe().unwrap();
        let inside = [input.into(), output.into()];
        flows(
            inside,
            [to_guest.into(), from_guest.into()],
            8 << 20,
            event_idx,
        );
    }
}

#[test]
fn through_a_socket() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let both = |socket: UnixStream| [socket.try_clone().unwrap().into(), socket.into()];
    flows(both(ours), both(theirs), 8 << 20, true);
}

#[test]
fn through_a_terminal() {
    let pty = openpty(None, None).unwrap();
    let mut modes = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut modes);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).unwrap();
    let both = |fd: OwnedFd| [fd.try_clone().unwrap(), fd];
    flows(both(pty.slave), both(pty.master), 1 << 20, true);
}
