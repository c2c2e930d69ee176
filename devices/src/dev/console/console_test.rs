//! The console, with the test as its guest.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::RawFd;

use proptest::prelude::*;
use virtio_bindings::virtio_ring::VRING_DESC_F_INDIRECT;

use super::*;
use crate::Memory;
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

const MEMORY: usize = 8 << 20;

/// A started console and its driver.
struct Guest {
    console: Console,
    memory: Arc<Memory>,
    queues: Vec<VirtQueue>,
    drivers: Vec<DriverQueue>,
    watch: FakeWatch,
}

impl Guest {
    fn new(console: Streams, ports: Vec<(&str, Streams)>) -> Self {
        Self::with(console, ports, true)
    }

    fn with(console: Streams, ports: Vec<(&str, Streams)>, multiport: bool) -> Self {
        let named = |(name, streams): (&str, Streams)| NamedPort {
            name: name.to_owned(),
            streams,
        };
        let console = Console::new(Config {
            console,
            ports: ports.into_iter().map(named).collect(),
            size: ConsoleHandle::new(80, 25).unwrap(),
        });
        let mut guest = Self {
            console: console.unwrap(),
            memory: memory(MEMORY),
            queues: Vec::new(),
            drivers: Vec::new(),
            watch: FakeWatch::default(),
        };
        guest.start(multiport);
        guest
    }

    fn start(&mut self, multiport: bool) {
        let sizes = self.console.traits().queue_sizes;
        let place = |(index, size): (u64, u16)| {
            DriverQueue::new(&self.memory, 0x1000 + index * 0x40000, size)
        };
        self.drivers = (0..).zip(sizes).map(place).collect();
        let mut activation = Activation {
            memory: Arc::clone(&self.memory),
            features: u64::from(multiport) << VIRTIO_CONSOLE_F_MULTIPORT,
            queues: self.drivers.iter().map(|d| d.device_end(true)).collect(),
        };
        self.watch = FakeWatch::default();
        self.console
            .start(&mut activation, &mut self.watch)
            .unwrap();
        self.queues = activation.queues;
    }

    /// Kicks as a driver does, and as often as the device kicks itself.
    fn kick(&mut self, index: usize) {
        self.queues[index].kick().write(1).unwrap();
        self.serve();
    }

    fn serve(&mut self) {
        while let Some(index) = self.queues.iter().position(|q| q.kick().read().is_ok()) {
            self.console
                .kicked(index, &mut self.queues, &mut self.watch)
                .unwrap();
        }
    }

    /// The event loop finds the descriptor of a port's direction ready, if it is watched.
    fn ready(&mut self, port: usize, direction: Direction) {
        let token = Token(port_queue(port, direction) as u16);
        assert!(self.watched(token).is_some(), "{token:?}");
        self.event(token);
    }

    fn event(&mut self, token: Token) {
        self.console
            .ready(token, EventSet::IN, &mut self.queues, &mut self.watch)
            .unwrap();
        self.serve();
    }

    fn watched(&self, token: Token) -> Option<(RawFd, EventSet)> {
        let mut watched = self.watch.watched.iter();
        let found = watched.find(|(_, (t, _))| *t == token)?;
        Some((*found.0, found.1.1))
    }

    fn say(&mut self, id: u32, event: u16, value: u16) {
        let mut message = id.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.drivers[CONTROL_TRANSMIT].send(&message);
        self.kick(CONTROL_TRANSMIT);
        assert!(self.drivers[CONTROL_TRANSMIT].used().is_some());
    }

    /// The next control message: port, event, value and what follows.
    fn hear(&mut self) -> Option<(u32, u16, u16, Vec<u8>)> {
        let message = self.filled(CONTROL_RECEIVE)?;
        let word = |at: usize| u16::from_le_bytes([message[at], message[at + 1]]);
        Some((u32::from(word(0)), word(4), word(6), message[8..].to_vec()))
    }

    /// What the device put into the next buffer of a receive queue.
    fn filled(&mut self, queue: usize) -> Option<Vec<u8>> {
        let (head, length) = self.drivers[queue].used()?;
        Some(self.drivers[queue].contents(head, length))
    }

    /// Makes buffers available in a receive queue.
    fn make_room(&mut self, queue: usize, count: usize, length: u32) {
        for _ in 0..count {
            self.drivers[queue].receive(length);
        }
        self.kick(queue);
    }

    /// What Linux does up to the point where processes can open the ports.
    fn boot(&mut self) {
        self.make_room(CONTROL_RECEIVE, 16, 64);
        self.say(u32::MAX, 0, 1);
        for id in 0..self.console.ports.len() as u32 {
            self.say(id, 3, 1);
        }
        while self.hear().is_some() {}
        self.say(0, 6, 1);
    }

    /// Sends `data` on a port, and returns whether the device has taken it.
    fn send(&mut self, port: usize, data: &[u8]) -> bool {
        let index = port_queue(port, Direction::Transmit);
        self.drivers[index].send(data);
        self.kick(index);
        self.taken(port)
    }

    fn taken(&mut self, port: usize) -> bool {
        let index = port_queue(port, Direction::Transmit);
        self.drivers[index].used().is_some()
    }

    fn drained(&mut self) -> bool {
        self.console.drained(&mut self.queues, &mut self.watch)
    }
}

fn from_host() -> (Streams, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let input = Some(Input::new(reader).unwrap());
    (
        Streams {
            input,
            output: None,
        },
        writer,
    )
}

fn to_host() -> (Streams, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let output = Some(Output::new(writer).unwrap());
    (
        Streams {
            input: None,
            output,
        },
        reader,
    )
}

fn read_some(reader: &mut PipeReader, most: usize) -> Vec<u8> {
    let mut data = vec![0; most];
    let count = reader.read(&mut data).unwrap();
    data.truncate(count);
    data
}

#[test]
fn ports_are_announced_open_before_their_names() {
    let mut guest = Guest::new(Streams::default(), vec![("runq.stdin", Streams::default())]);
    guest.say(u32::MAX, 0, 1);
    assert_eq!(guest.hear(), None, "there is no room yet");
    guest.make_room(CONTROL_RECEIVE, 16, 64);
    assert_eq!(guest.hear(), Some((0, 1, 1, vec![])));
    assert_eq!(guest.hear(), Some((1, 1, 1, vec![])));
    assert_eq!(guest.hear(), None);
    guest.say(1, 3, 1);
    assert_eq!(guest.hear(), Some((1, 6, 1, vec![])));
    assert_eq!(guest.hear(), Some((1, 7, 1, b"runq.stdin".to_vec())));
    guest.say(0, 3, 1);
    assert_eq!(guest.hear(), Some((0, 6, 1, vec![])));
    assert_eq!(guest.hear(), Some((0, 4, 1, vec![])));
    assert_eq!(guest.hear(), Some((0, 5, 0, vec![80, 0, 25, 0])));
    assert_eq!(guest.hear(), None);
}

#[test]
fn configuration_and_queues_are_those_of_the_specification() {
    let guest = Guest::new(Streams::default(), vec![("a", Streams::default())]);
    let mut config = [0; 12];
    guest.console.traits().config.read(0, &mut config);
    assert_eq!(config, [80, 0, 25, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.console.traits().queue_sizes, [16, 64, 16, 16, 16, 64]);
    assert_eq!(guest.console.traits().features, 0b11);
    for port in [0, 1, 2, 30] {
        for direction in [Direction::Receive, Direction::Transmit] {
            assert_eq!(queue_port(port_queue(port, direction)), (port, direction));
        }
    }
    assert_eq!(port_queue(1, Direction::Transmit), 5);
}

#[test]
fn names_have_to_fit() {
    for name in ["", "with\0nul", &"x".repeat(256)] {
        let error = Console::new(Config {
            console: Streams::default(),
            ports: vec![NamedPort {
                name: name.to_owned(),
                streams: Streams::default(),
            }],
            size: ConsoleHandle::new(0, 0).unwrap(),
        })
        .unwrap_err();
        assert!(error.to_string().contains("1 to 255"), "{error}");
    }
}

#[test]
fn input_waits_until_the_port_is_open_and_has_room_and_then_ends() {
    let (streams, mut writer) = from_host();
    let mut guest = Guest::new(Streams::default(), vec![("stdin", streams)]);
    guest.boot();
    let queue = port_queue(1, Direction::Receive);
    writer.write_all(b"hello").unwrap();
    guest.make_room(queue, 1, 4);
    assert_eq!(guest.filled(queue), None, "nobody has opened it");

    guest.say(1, 6, 1);
    assert_eq!(guest.filled(queue).unwrap(), b"hell");
    assert_eq!(guest.filled(queue), None);
    guest.make_room(queue, 2, 4);
    assert_eq!(guest.filled(queue).unwrap(), b"o");
    assert_eq!(guest.filled(queue), None);

    let (_, events) = guest.watched(Token(queue as u16)).unwrap();
    assert_eq!(events, EventSet::IN | EventSet::EDGE_TRIGGERED);
    writer.write_all(b"bye").unwrap();
    drop(writer);
    guest.ready(1, Direction::Receive);
    assert_eq!(guest.filled(queue).unwrap(), b"bye");
    assert_eq!(guest.hear(), None, "the end is found by reading on");
    guest.make_room(queue, 1, 4);
    assert_eq!(guest.hear(), Some((1, 6, 0, vec![])));
    assert_eq!(guest.watched(Token(queue as u16)), None);
    assert_eq!(guest.filled(queue), None);
}

#[test]
fn an_end_that_came_early_is_told_after_a_reset_too() {
    let (streams, writer) = from_host();
    drop(writer);
    let mut guest = Guest::new(Streams::default(), vec![("stdin", streams)]);
    guest.boot();
    guest.make_room(4, 1, 64);
    guest.say(1, 6, 1);
    assert_eq!(guest.hear(), Some((1, 6, 0, vec![])));
    guest.console.stop();
    guest.start(true);
    guest.make_room(CONTROL_RECEIVE, 16, 64);
    guest.say(1, 3, 1);
    assert_eq!(guest.hear(), Some((1, 6, 0, vec![])));
}

#[test]
fn input_for_a_port_that_the_guest_closed_wakes_nobody_and_waits() {
    let (streams, mut writer) = from_host();
    let mut guest = Guest::new(Streams::default(), vec![("stdin", streams)]);
    guest.boot();
    guest.say(1, 6, 1);
    guest.make_room(4, 1, 64);
    assert!(guest.watched(Token(4)).is_some());
    guest.say(1, 6, 0);
    assert_eq!(guest.watched(Token(4)), None);
    writer.write_all(b"later").unwrap();
    guest.kick(4);
    assert_eq!(guest.filled(4), None);
    guest.say(1, 6, 1);
    assert_eq!(guest.filled(4).unwrap(), b"later");
}

#[test]
fn empty_buffers_are_not_taken_for_the_end() {
    let (streams, mut writer) = from_host();
    let mut guest = Guest::new(Streams::default(), vec![("stdin", streams)]);
    guest.boot();
    guest.say(1, 6, 1);
    writer.write_all(b"data").unwrap();
    guest.make_room(4, 1, 0);
    assert_eq!(guest.filled(4).unwrap(), b"");
    guest.drivers[4].send(b"not for writing");
    guest.make_room(4, 1, 16);
    assert_eq!(guest.filled(4).unwrap(), b"");
    assert_eq!(guest.filled(4).unwrap(), b"data");
    assert_eq!(guest.hear(), None);
}

#[test]
fn output_that_its_reader_does_not_take_stays_in_the_guest() {
    let (streams, mut reader) = to_host();
    let mut guest = Guest::new(Streams::default(), vec![("stdout", streams)]);
    guest.boot();
    guest.say(1, 6, 1);
    let sent: Vec<u8> = (0..100_000u32).map(|i| (i / 3) as u8).collect();
    assert!(!guest.send(1, &sent), "a pipe holds 64 KiB");
    let (_, events) = guest.watched(Token(5)).unwrap();
    assert_eq!(events, EventSet::OUT | EventSet::EDGE_TRIGGERED);
    guest.say(1, 6, 0);
    assert!(!guest.drained());

    let mut got = read_some(&mut reader, 65_536);
    guest.ready(1, Direction::Transmit);
    assert!(guest.taken(1));
    assert!(guest.drained());
    assert_eq!(guest.watched(Token(5)), None, "closed after all of it");
    reader.read_to_end(&mut got).unwrap();
    assert_eq!(got, sent);
    assert!(guest.send(1, b"discarded"));
}

#[test]
fn a_port_that_is_opened_again_before_its_output_is_out_stays_open() {
    let (streams, mut reader) = to_host();
    let mut guest = Guest::new(Streams::default(), vec![("stdout", streams)]);
    guest.boot();
    guest.say(1, 6, 1);
    assert!(!guest.send(1, &[1; 70_000]));
    guest.say(1, 6, 0);
    guest.say(1, 6, 1);
    read_some(&mut reader, 65_536);
    guest.ready(1, Direction::Transmit);
    assert!(guest.taken(1));
    assert_eq!(read_some(&mut reader, 65_536).len(), 70_000 - 65_536);
    assert!(guest.send(1, b"more"));
    assert_eq!(read_some(&mut reader, 10), b"more");
}

#[test]
fn output_without_a_reader_is_told_and_does_not_stop_the_guest() {
    let (streams, reader) = to_host();
    let mut guest = Guest::new(Streams::default(), vec![("stdout", streams)]);
    guest.boot();
    assert!(!guest.send(1, &[1; 70_000]));
    assert_eq!(guest.hear(), None);
    drop(reader);
    guest.ready(1, Direction::Transmit);
    assert!(guest.taken(1));
    assert_eq!(guest.hear(), Some((1, 6, 0, vec![])));
    assert!(guest.send(1, b"more"));
    assert!(guest.drained());
}

#[test]
fn a_slow_reader_does_not_stop_the_console() {
    let (streams, mut reader) = to_host();
    let mut guest = Guest::new(streams, vec![]);
    guest.boot();
    assert!(guest.send(0, &[1; 70_000]));
    assert!(guest.send(0, b"the end"));
    assert!(!guest.drained());
    let mut got = read_some(&mut reader, 65_536);
    guest.ready(0, Direction::Transmit);
    assert!(guest.drained());
    got.extend(read_some(&mut reader, 65_536));
    assert_eq!(got.len(), 70_007);
    assert!(got.ends_with(b"the end"));
}

#[test]
fn without_multiport_there_is_a_console_and_no_messages() {
    let (input, mut writer) = from_host();
    let (output, mut reader) = to_host();
    let streams = Streams {
        input: input.input,
        output: output.output,
    };
    let mut guest = Guest::with(streams, vec![], false);
    writer.write_all(b"in").unwrap();
    guest.make_room(0, 1, 64);
    assert_eq!(guest.filled(0).unwrap(), b"in");
    assert!(guest.send(0, b"out"));
    assert_eq!(read_some(&mut reader, 10), b"out");
}

#[test]
fn a_new_size_is_told_in_both_ways() {
    let mut guest = Guest::new(Streams::default(), vec![]);
    guest.boot();
    let handle = guest.console.size.clone();
    std::thread::spawn(move || {
        handle.resize(100, 30);
        handle.resize(132, 43);
    })
    .join()
    .unwrap();
    let (fd, _) = guest.watched(SIZE_TOKEN).unwrap();
    assert_eq!(fd, guest.console.size.changed().as_raw_fd());
    guest.event(SIZE_TOKEN);
    assert_eq!(guest.hear(), Some((0, 5, 0, vec![132, 0, 43, 0])));
    assert_eq!(guest.hear(), None);
    let mut config = [0; 4];
    guest.console.traits().config.read(0, &mut config);
    assert_eq!(config, [132, 0, 43, 0]);
    assert!(guest.console.traits().config.call().read().is_ok());
}

#[test]
fn messages_that_nobody_understands_are_ignored() {
    let mut guest = Guest::new(Streams::default(), vec![]);
    guest.boot();
    for (id, event) in [(0, 99), (77, 6), (77, 3), (u32::MAX, 1)] {
        guest.say(id, event, 1);
    }
    guest.drivers[CONTROL_TRANSMIT].send(b"short");
    guest.kick(CONTROL_TRANSMIT);
    assert_eq!(guest.hear(), None);
}

#[test]
fn memory_that_does_not_exist_breaks_the_device_only() {
    let mut guest = Guest::new(Streams::default(), vec![("stdout", to_host().0)]);
    guest.boot();
    guest.drivers[5].add(&[Buffer {
        address: MEMORY as u64 - 1,
        length: 2,
        writable: false,
    }]);
    let error = guest
        .console
        .kicked(5, &mut guest.queues, &mut guest.watch)
        .unwrap_err();
    assert!(matches!(error, DeviceError::Driver(_)), "{error}");
}

#[test]
fn one_turn_is_bounded() {
    // A chain of nearly 4 GiB, all in the same memory, to a file that takes everything, in a queue
    // that is long enough for it.
    let file = File::options().write(true).open("/dev/null").unwrap();
    let output = Some(Output::new(file).unwrap());
    let streams = Streams {
        input: None,
        output,
    };
    let mut guest = Guest::new(Streams::default(), vec![("out", streams)]);
    guest.boot();
    guest.drivers[5] = DriverQueue::new(&guest.memory, 0x1000 + 5 * 0x40000, 1024);
    guest.queues[5] = guest.drivers[5].device_end(true);
    let table = MEMORY as u64 / 2;
    for i in 0..1023u16 {
        let at = table + 16 * u64::from(i);
        let mut descriptor = 0u64.to_le_bytes().to_vec();
        descriptor.extend((4u32 << 20).to_le_bytes());
        descriptor.extend(u16::from(i < 1022).to_le_bytes());
        descriptor.extend((i + 1).to_le_bytes());
        let address = vm_memory::GuestAddress(at);
        vm_memory::Bytes::write_slice(&*guest.memory, &descriptor, address).unwrap();
    }
    let indirect = Buffer {
        address: table,
        length: 1023 * 16,
        writable: false,
    };
    guest.drivers[5].set_descriptor(0, indirect, VRING_DESC_F_INDIRECT as u16, 0);
    guest.drivers[5].make_available(0);
    let mut turns = 0;
    guest.queues[5].kick().write(1).unwrap();
    while guest.queues[5].kick().read().is_ok() {
        guest
            .console
            .kicked(5, &mut guest.queues, &mut guest.watch)
            .unwrap();
        turns += 1;
    }
    assert_eq!(
        turns,
        1023 * 4 + 1,
        "of 1 MiB each, and one that finds the end"
    );
    assert!(guest.taken(1));
    assert_eq!(guest.watched(Token(5)), None, "a file cannot be watched");
}

/// Any descriptor.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![0..MEMORY as u64, any::<u64>()];
    let length = prop_oneof![0..5000u32, any::<u32>()];
    (address, length, 0..8u16, 0..20u16)
}

proptest! {
    /// Whatever is in the rings, every call returns, and no device panics.
    #[test]
    fn any_driver_is_survived(
        descriptors in prop::collection::vec((0..6usize, 0..16u16, descriptor()), 0..60),
        heads in prop::collection::vec((0..6usize, 0..20u16), 0..40),
        messages in prop::collection::vec((0..4u32, 0..8u16, 0..2u16), 0..8),
        table in prop::collection::vec(any::<u8>(), 512),
    ) {
        let (input, mut writer) = from_host();
        let null = File::options().write(true).open("/dev/null").unwrap();
        let streams = Streams { input: input.input, output: Some(Output::new(null).unwrap()) };
        let mut guest = Guest::new(Streams::default(), vec![("port", streams)]);
        writer.write_all(&[1; 30_000]).unwrap();
        guest.boot();
        // Somewhere for indirect tables to be.
        vm_memory::Bytes::write_slice(&*guest.memory, &table, vm_memory::GuestAddress(0)).unwrap();
        for (id, event, value) in messages {
            guest.say(id, event, value);
        }
        for (queue, index, (address, length, flags, next)) in descriptors {
            let buffer = Buffer { address, length, writable: false };
            guest.drivers[queue].set_descriptor(index, buffer, flags, next);
        }
        for &(queue, head) in &heads {
            guest.drivers[queue].make_available(head);
        }
        for index in 0..6 {
            for _ in 0..4 {
                let served = guest.console.kicked(index, &mut guest.queues, &mut guest.watch);
                if served.is_err() {
                    // Stopped, as the event loop does it.
                    guest.console.stop();
                    return Ok(());
                }
            }
        }
        guest.drained();
    }

    /// However the guest cuts its output into buffers, and the host reads it, it is the same.
    #[test]
    fn output_is_what_was_sent(
        chains in prop::collection::vec(
            prop::collection::vec((0..20_000u32, any::<bool>()), 1..6), 1..12),
        reads in prop::collection::vec(1usize..70_000, 30),
    ) {
        let (streams, mut reader) = to_host();
        let mut guest = Guest::new(Streams::default(), vec![("out", streams)]);
        guest.boot();
        let mut sent = Vec::<u8>::new();
        let mut address = 4 << 20;
        for chain in chains {
            let mut buffers = Vec::new();
            for (length, writable) in chain {
                let data: Vec<u8> = (0..length).map(|i| (address + u64::from(i) / 5) as u8).collect();
                vm_memory::Bytes::write_slice(
                    &*guest.memory, &data, vm_memory::GuestAddress(address)).unwrap();
                buffers.push(Buffer { address, length, writable });
                address += u64::from(length);
                if !writable {
                    sent.extend(data);
                }
            }
            guest.drivers[5].add(&buffers);
        }
        guest.kick(5);
        let mut got = Vec::<u8>::new();
        for most in reads.into_iter().chain(std::iter::repeat(65_536)) {
            if got.len() >= sent.len() {
                break;
            }
            got.extend(read_some(&mut reader, most));
            if guest.watched(Token(5)).is_some() {
                guest.ready(1, Direction::Transmit);
            }
        }
        prop_assert_eq!(got, sent);
        prop_assert!(guest.drained());
    }
}
