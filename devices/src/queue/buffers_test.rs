use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::QueueT;
use vm_memory::Bytes;

use super::*;
use crate::queue::VirtQueue;
use crate::testing::{self, DriverQueue, memory};

/// Descriptor flags: next, indirect (section 2.7.5).
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

const MEMORY: usize = 1 << 20;
const RING: u64 = 0x1000;
/// Where indirect tables are, and the buffers.
const TABLE: u64 = 0x2_0000;
const DATA: u64 = 0x8_0000;

/// A queue, in memory where buffers have bytes of their own.
fn pair(size: u16) -> (DriverQueue, VirtQueue, Arc<Memory>) {
    let memory = memory(MEMORY);
    let bytes: Vec<u8> = (0..0x1_0000_u32).map(|i| (i ^ i >> 7) as u8).collect();
    memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
    let driver = DriverQueue::new(&memory, RING, size);
    let device = driver.device_end(false);
    (driver, device, memory)
}

fn buffer(address: u64, length: u32) -> testing::Buffer {
    testing::Buffer {
        address,
        length,
        writable: false,
    }
}

fn readable(queue: &mut VirtQueue) -> Result<Buffers, DeviceError> {
    let chain = queue.pop().unwrap().unwrap();
    Buffers::readable(chain, queue.ring().size())
}

/// A descriptor of an indirect table.
fn set_entry(memory: &Memory, index: u16, (address, length, flags, next): (u64, u32, u16, u16)) {
    let mut entry = address.to_le_bytes().to_vec();
    entry.extend(length.to_le_bytes());
    entry.extend(flags.to_le_bytes());
    entry.extend(next.to_le_bytes());
    let at = TABLE + 16 * u64::from(index);
    memory.write_slice(&entry, GuestAddress(at)).unwrap();
}

/// An indirect table of `length` descriptors, in a queue of `size`.
fn indirect(length: u16, size: u16) -> Result<Buffers, DeviceError> {
    let (mut driver, mut device, memory) = pair(size);
    for i in 0..length {
        let flags = if i + 1 < length { NEXT } else { 0 };
        set_entry(&memory, i, (DATA, 1, flags, i + 1));
    }
    let table = buffer(TABLE, 16 * u32::from(length));
    driver.set_descriptor(0, table, INDIRECT, 0);
    driver.make_available(0);
    readable(&mut device)
}

fn bytes(slices: &[Slice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices {
        let mut part = vec![0; slice.len()];
        slice.copy_to(&mut part);
        bytes.extend(part);
    }
    bytes
}

/// In a thousand steps a chain of a thousand descriptors costs a thousand reads of the table, and
/// a bounded number of slices each.
#[test]
fn each_descriptor_is_read_once_however_often_a_chain_is_interrupted() {
    let (mut driver, mut device, memory) = pair(1024);
    let chain: Vec<_> = (0..1000).map(|i| buffer(DATA + 3 * i, 1)).collect();
    driver.add(&chain);
    let mut buffers = readable(&mut device).unwrap();
    // Who reads the table again finds nothing but memory that does not exist.
    for index in 0..1024 {
        driver.set_descriptor(index, buffer(u64::MAX, 1), NEXT, index + 1);
    }
    for i in 0..1000 {
        let slices = buffers.slices(&memory, usize::MAX).unwrap();
        assert_eq!(slices.len(), MAX_SLICES.min(1000 - i), "step {i}");
        let at = GuestAddress(DATA + 3 * i as u64);
        assert_eq!(bytes(&slices)[0], memory.read_obj::<u8>(at).unwrap());
        buffers.advance(1);
    }
    assert!(buffers.slices(&memory, usize::MAX).unwrap().is_empty());
}

#[test]
fn a_chain_is_at_most_as_long_as_its_queue() {
    assert!(indirect(16, 16).is_ok());
    for length in [17, 1000, u16::MAX - 0x2000] {
        let error = indirect(length, 16).unwrap_err();
        assert!(matches!(error, DeviceError::Driver(_)), "{error}");
        assert!(error.to_string().contains("within the 16"), "{error}");
    }
}

#[test]
fn a_loop_is_an_error() {
    let (mut driver, mut device, _) = pair(8);
    driver.set_descriptor(0, buffer(DATA, 1), NEXT, 1);
    driver.set_descriptor(1, buffer(DATA, 1), NEXT, 0);
    driver.make_available(0);
    assert!(readable(&mut device).is_err());
}

/// Flags and the next descriptor: straight on, or anything.
fn links(size: u16) -> impl Strategy<Value = (u16, Option<u16>)> {
    prop_oneof![
        4 => (prop_oneof![Just(1_u16), Just(3)], Just(None)),
        1 => (0..8_u16, (0..size + 2).prop_map(Some)),
    ]
}

proptest! {
    /// Whatever the chain, direct or indirect, and however it is interrupted: it gives out what its
    /// descriptors name, in their order and once, unless it has no end within the queue's size.
    #[test]
    fn any_chain_is_given_out_once(
        direct in prop::collection::vec((links(16), 0..300_u32), 16),
        table in prop::collection::vec((links(24), 0..300_u32), 24),
        table_at in 0..20_u16,
        table_length in 0..25_u32,
        writable in any::<bool>(),
        steps in prop::collection::vec((1..900_usize, 0..900_usize), 64),
    ) {
        let (mut driver, mut device, memory) = pair(16);
        let place = |i: u16| DATA + 1000 * u64::from(i);
        for (i, ((flags, next), length)) in (0..).zip(direct) {
            let next = next.unwrap_or(i + 1);
            driver.set_descriptor(i, buffer(place(i), length), flags & !INDIRECT, next);
        }
        for (i, ((flags, next), length)) in (0..).zip(table) {
            set_entry(&memory, i, (place(i + 16), length, flags, next.unwrap_or(i + 1)));
        }
        if table_at < 16 {
            driver.set_descriptor(table_at, buffer(TABLE, 16 * table_length), INDIRECT, 0);
        }
        driver.make_available(0);
        let chain = device.pop().unwrap().unwrap();
        let walked: Vec<_> = chain.clone().take(17).collect();
        let endless = walked.len() > 16 || walked.last().is_some_and(|last| last.has_next());
        let buffers = Buffers::new(chain, 16, writable);
        prop_assert_eq!(buffers.is_err(), endless);
        let Ok(mut buffers) = buffers else { return Ok(()) };

        let mut expected = Vec::new();
        for descriptor in walked.iter().filter(|d| d.is_write_only() == writable) {
            let mut part = vec![0; descriptor.len() as usize];
            memory.read_slice(&mut part, descriptor.addr()).unwrap();
            expected.extend(part);
        }
        let mut got = Vec::new();
        for (limit, used) in steps.into_iter().chain(std::iter::repeat((4096, 4096))) {
            let slices = buffers.slices(&memory, limit).unwrap();
            prop_assert!(slices.iter().all(|slice| !slice.is_empty()));
            let mut part = bytes(&slices);
            prop_assert!(part.len() <= limit);
            if part.is_empty() {
                break;
            }
            part.truncate(used);
            buffers.advance(part.len());
            got.extend(part);
        }
        prop_assert_eq!(got, expected);
    }
}
