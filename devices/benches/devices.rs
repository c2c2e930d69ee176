//! What a request costs the host in the devices themselves, from the kick to the used ring.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use devices::Memory;
use devices::dev::console::{self, ConsoleHandle, NamedPort, Streams};
use devices::dev::{DeviceSpec, rng, share};
use devices::device::{Activation, VirtioDevice};
use devices::queue::VirtQueue;
use devices::stream::{Input, Output};
use devices::testing::{Buffer, DriverQueue, FakeWatch, memory};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

const MEMORY: usize = 16 << 20;
/// Where a request's buffers are.
const BUFFER: u64 = 8 << 20;

/// A started device and its driver.
struct Guest {
    device: Box<dyn VirtioDevice>,
    memory: Arc<Memory>,
    drivers: Vec<DriverQueue>,
    queues: Vec<VirtQueue>,
    events: Vec<(EventFd, EventFd)>,
    watch: FakeWatch,
}

impl Guest {
    fn new(spec: DeviceSpec) -> Self {
        let mut device = spec.build().unwrap();
        let memory = memory(MEMORY);
        let place = |(i, size): (u64, u16)| DriverQueue::new(&memory, i * 0x4_0000, size);
        let drivers: Vec<_> = (0..).zip(device.traits().queue_sizes).map(place).collect();
        let queues: Vec<_> = drivers.iter().map(|d| d.device_end(false)).collect();
        let clone = |q: &VirtQueue| (q.kick().try_clone().unwrap(), q.call().try_clone().unwrap());
        let events = queues.iter().map(clone).collect();
        let mut activation = Activation {
            memory: Arc::clone(&memory),
            features: device.traits().features,
            queues,
        };
        let mut watch = FakeWatch::default();
        device.start(&mut activation, &mut watch).unwrap();
        Self {
            device,
            memory,
            drivers,
            queues: activation.queues,
            events,
            watch,
        }
    }

    fn kick(&mut self, queue: usize) {
        self.device
            .kicked(queue, &mut self.queues, &mut self.watch)
            .unwrap();
        assert!(self.drivers[queue].used().is_some());
    }
}

fn buffer(length: u32, writable: bool) -> Buffer {
    Buffer {
        address: BUFFER,
        length,
        writable,
    }
}

fn console_port(c: &mut Criterion) {
    let open = |path| File::options().read(true).write(true).open(path).unwrap();
    let streams = Streams {
        input: Some(Input::new(open("/dev/zero")).unwrap()),
        output: Some(Output::new(open("/dev/null")).unwrap()),
    };
    let mut guest = Guest::new(DeviceSpec::Console(console::Config {
        console: Streams::default(),
        ports: vec![NamedPort {
            name: "port".to_owned(),
            streams,
        }],
        size: ConsoleHandle::new(80, 25).unwrap(),
    }));
    // The guest opens port 1 (event 6).
    guest.drivers[3].send(&[1, 0, 0, 0, 6, 0, 1, 0]);
    guest.kick(3);
    for length in [64, 4096, 32768] {
        for (name, queue, writable) in [("send", 5, false), ("receive", 4, true)] {
            c.bench_function(&format!("console port, {name} {length} bytes"), |b| {
                b.iter(|| {
                    guest.drivers[queue].add(&[buffer(length, writable)]);
                    guest.kick(queue);
                });
            });
        }
    }
}

fn random(c: &mut Criterion) {
    let mut guest = Guest::new(DeviceSpec::Rng(rng::Config::default()));
    for length in [64, 4096] {
        c.bench_function(&format!("rng, {length} bytes"), |b| {
            b.iter(|| {
                guest.drivers[0].add(&[buffer(length, true)]);
                guest.kick(0);
            });
        });
    }
}

/// Another thread answers, as in a virtual machine: two switches of threads are part of it.
fn share(c: &mut Criterion) {
    let mut guest = Guest::new(DeviceSpec::Fs(share::Config::new("bench", "/", true)));
    let epoll = Epoll::new().unwrap();
    let call = guest.events[1].1.as_raw_fd();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, call, event).unwrap();
    let memory = Arc::clone(&guest.memory);
    let mut ask = |opcode: u32, body: &[u32]| {
        // `struct fuse_in_header`: len, opcode, unique, nodeid, uid, gid, pid, padding.
        let mut message = vec![40 + 4 * body.len() as u32, opcode, 1, 0, 1, 0, 0, 0, 0, 0];
        message.extend(body);
        let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
        let answer = Buffer {
            address: BUFFER + 4096,
            length: 4096,
            writable: true,
        };
        guest.drivers[1].add(&[buffer(bytes.len() as u32, false), answer]);
        guest.events[1].0.write(1).unwrap();
        while guest.drivers[1].used().is_none() {
            epoll.wait(-1, &mut [event]).unwrap();
            guest.events[1].1.read().unwrap();
        }
    };
    let mut init = vec![7, 38, 1 << 17, 0];
    init.resize(16, 0);
    ask(26, &init);
    c.bench_function("share, GETATTR", |b| b.iter(|| ask(3, &[0; 4])));
}

criterion_group!(benches, console_port, random, share);
criterion_main!(benches);
