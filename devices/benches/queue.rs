//! What a virtqueue costs the host: popping, pushing and signalling; and decoding a register access.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use devices::virtio::testing::{Buffer, DriverQueue, memory};

fn virtqueue(c: &mut Criterion) {
    let memory = memory(1 << 20);
    let buffer = Buffer {
        address: 0x8_0000,
        length: 4096,
        writable: true,
    };
    for event_idx in [false, true] {
        let mut driver = DriverQueue::new(&memory, 0x1000, 256);
        let mut device = driver.device_end(event_idx);
        c.bench_function(&format!("pop, push, signal; event_idx={event_idx}"), |b| {
            b.iter(|| {
                driver.add(&[buffer]);
                let chain = device.pop().unwrap().unwrap();
                device.push(chain.head_index(), black_box(1)).unwrap();
                device.signal().unwrap();
            });
        });
        assert!(device.call().read().is_ok());
    }
}

criterion_group!(benches, virtqueue);
criterion_main!(benches);
