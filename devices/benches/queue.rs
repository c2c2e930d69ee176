//! What the guest's requests cost the host: the virtqueue alone, a device's turn, and the decoding
//! of a register access.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use devices::dev::console::{Console, ConsoleHandle, Streams};
use devices::dev::{console, rng};
use devices::device::{Activation, VirtioDevice};
use devices::event_loop::{EventLoop, add_device};
use devices::pci::PciRoot;
use devices::stream::Output;
use devices::testing::{Buffer, DriverQueue, FakeFabric, FakeWatch, memory};
use devices::transport::pci::VirtioPci;

const BAR: u64 = 0xe000_0000;

/// A page of the guest's.
fn page(writable: bool) -> Buffer {
    Buffer {
        address: 0x8_0000,
        length: 4096,
        writable,
    }
}

fn virtqueue(c: &mut Criterion) {
    let memory = memory(1 << 20);
    for event_idx in [false, true] {
        let mut driver = DriverQueue::new(&memory, 0x1000, 256);
        let mut device = driver.device_end(event_idx);
        c.bench_function(&format!("virtqueue, event_idx={event_idx}"), |b| {
            b.iter(|| {
                driver.add(&[page(true)]);
                let chain = device.pop().unwrap().unwrap();
                device.push(chain.head_index(), black_box(1)).unwrap();
                device.signal().unwrap();
            });
        });
        assert!(device.call().read().is_ok());
    }
}

/// Starts `device` with queues of the sizes that it asks for, and has it serve `buffer` in queue
/// `index` again and again.
fn serve(
    c: &mut Criterion,
    name: &str,
    mut device: Box<dyn VirtioDevice>,
    index: usize,
    buffer: Buffer,
) {
    let memory = memory(1 << 20);
    let bases = (1..).map(|n| n * 0x2000);
    let mut drivers: Vec<_> = bases
        .zip(device.traits().queue_sizes)
        .map(|(base, size)| DriverQueue::new(&memory, base, size))
        .collect();
    let mut activation = Activation {
        memory: Arc::clone(&memory),
        features: 0,
        queues: drivers.iter().map(|d| d.device_end(true)).collect(),
    };
    let mut watch = FakeWatch::default();
    device.start(&mut activation, &mut watch).unwrap();
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(buffer.length.into()));
    group.bench_function("4 KiB", |b| {
        b.iter(|| {
            drivers[index].add(&[buffer]);
            device
                .kicked(index, &mut activation.queues, &mut watch)
                .unwrap();
            assert!(drivers[index].used().is_some());
        });
    });
}

fn devices(c: &mut Criterion) {
    let rng = rng::Rng::new(rng::Config::default()).unwrap();
    serve(c, "rng", Box::new(rng), 0, page(true));

    let null = File::options().write(true).open("/dev/null").unwrap();
    let console = Console::new(console::Config {
        console: Streams {
            input: None,
            output: Some(Output::new(null).unwrap()),
        },
        ports: Vec::new(),
        size: ConsoleHandle::new(80, 25).unwrap(),
    });
    serve(
        c,
        "console output",
        Box::new(console.unwrap()),
        1,
        page(false),
    );
}

fn registers(c: &mut Criterion) {
    let mut event_loop = EventLoop::new().unwrap();
    let rng = rng::Rng::new(rng::Config::default()).unwrap();
    let device = add_device(&mut event_loop, Box::new(rng)).unwrap();
    let fabric = Arc::new(FakeFabric::default());
    let function = VirtioPci::new(device, memory(1 << 20), fabric, BAR as u32).unwrap();
    let root = PciRoot::new();
    root.add(Box::new(function)).unwrap();
    root.ecam_write((1 << 15) + 4, &[0b110, 0]);

    let mut data = [0; 4];
    c.bench_function("configuration space read", |b| {
        b.iter(|| root.ecam_read(black_box(1 << 15), &mut data));
    });
    assert_eq!(data, [0xf4, 0x1a, 0x44, 0x10]);
    c.bench_function("common configuration read", |b| {
        b.iter(|| root.mmio_read(black_box(BAR + 0x18), &mut data[..2]));
    });
    assert_ne!(data[..2], [0, 0]);
    c.bench_function("common configuration write", |b| {
        b.iter(|| root.mmio_write(black_box(BAR + 0x16), &[0, 0]));
    });
    c.bench_function("MSI-X mask and unmask", |b| {
        b.iter(|| {
            for mask in [1, 0] {
                root.mmio_write(black_box(BAR + 0x100c), &[mask, 0, 0, 0]);
            }
        });
    });
}

criterion_group!(benches, virtqueue, devices, registers);
criterion_main!(benches);
