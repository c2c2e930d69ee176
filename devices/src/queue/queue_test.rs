use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{Buffer, DriverQueue, memory};

/// Descriptor flags: next, device writes, indirect (section 2.7.5).
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

const MEMORY: usize = 1 << 20;

fn pair(size: u16, event_idx: bool) -> (DriverQueue, VirtQueue) {
    let driver = DriverQueue::new(&memory(MEMORY), 0x1000, size);
    let device = driver.device_end(event_idx);
    (driver, device)
}

fn buffer(address: u64, length: u32) -> Buffer {
    Buffer {
        address,
        length,
        writable: false,
    }
}

#[test]
fn chains_are_popped_in_order_and_returned_with_their_length() {
    let (mut driver, mut device) = pair(4, false);
    assert!(device.pop().unwrap().is_none());
    // Three times around the ring.
    for round in 0..6_u8 {
        let first = driver.send(&[round; 3]);
        let second = driver.receive(10);
        let chain = device.pop().unwrap().unwrap();
        assert_eq!(chain.head_index(), first);
        device.push(first, 0).unwrap();
        let chain = device.pop().unwrap().unwrap();
        device.unpop();
        assert_eq!(chain.head_index(), second);
        assert_eq!(device.pop().unwrap().unwrap().head_index(), second);
        device
            .memory()
            .write_slice(&[round; 10], chain.clone().next().unwrap().addr())
            .unwrap();
        device.push(second, 10).unwrap();
        assert_eq!(driver.used(), Some((first.into(), 0)));
        assert_eq!(driver.used(), Some((second.into(), 10)));
        assert_eq!(driver.contents(second.into(), 10), [round; 10]);
        assert_eq!(driver.used(), None);
    }
}

#[test]
fn the_driver_is_signalled_when_it_wants_to_be() {
    let (mut driver, mut device) = pair(8, true);
    // From the third used chain on.
    driver.set_used_event(2);
    for expected in [false, false, true, false] {
        let head = driver.receive(1);
        device.pop().unwrap().unwrap();
        device.push(head, 1).unwrap();
        device.signal().unwrap();
        assert_eq!(device.call().read().is_ok(), expected);
    }
}

#[test]
fn enabling_notifications_tells_of_chains_that_came_in_meanwhile() {
    for event_idx in [false, true] {
        let (mut driver, mut device) = pair(8, event_idx);
        device.disable_notifications().unwrap();
        assert!(!device.enable_notifications().unwrap());
        driver.receive(1);
        device.disable_notifications().unwrap();
        assert!(device.enable_notifications().unwrap());
        device.pop().unwrap().unwrap();
        assert!(!device.enable_notifications().unwrap());
        if event_idx {
            assert_eq!(driver.available_event(), 1);
        }
    }
}

#[test]
fn a_loop_of_descriptors_ends() {
    let (mut driver, mut device) = pair(8, false);
    driver.set_descriptor(0, buffer(0, 1), NEXT, 1);
    driver.set_descriptor(1, buffer(0, 1), NEXT, 0);
    driver.make_available(0);
    assert_eq!(device.pop().unwrap().unwrap().count(), 8);
}

#[test]
fn an_indirect_table_within_another_ends_the_chain() {
    let (mut driver, mut device) = pair(8, false);
    // The table is the ring's own: its first entry is indirect again.
    driver.set_descriptor(0, buffer(driver.descriptors(), 16 * 8), INDIRECT, 0);
    driver.make_available(0);
    assert_eq!(device.pop().unwrap().unwrap().count(), 0);
}

#[test]
fn a_chain_of_more_than_four_gigabytes_is_cut_off() {
    let (mut driver, mut device) = pair(8, false);
    driver.add(&[buffer(0, u32::MAX), buffer(0, u32::MAX), buffer(0, 1)]);
    let lengths: Vec<_> = device.pop().unwrap().unwrap().map(|d| d.len()).collect();
    assert_eq!(lengths, [u32::MAX]);
}

#[test]
fn empty_buffers_and_heads_out_of_range_come_through_as_such() {
    let (mut driver, mut device) = pair(8, false);
    driver.add(&[buffer(u64::MAX, 0)]);
    let chain = device.pop().unwrap().unwrap();
    assert_eq!(chain.map(|d| d.len()).collect::<Vec<_>>(), [0]);
    driver.make_available(8);
    let chain = device.pop().unwrap().unwrap();
    assert_eq!((chain.head_index(), chain.count()), (8, 0));
    assert!(device.push(8, 0).is_err(), "there is no such descriptor");
}

#[test]
fn an_index_that_runs_away_is_an_error() {
    let (mut driver, mut device) = pair(8, false);
    driver.set_available_index(8);
    assert!(device.pop().unwrap().is_some());
    driver.set_available_index(10);
    assert!(device.pop().is_err());
}

#[test]
fn a_queue_that_is_not_enabled_pops_nothing() {
    let memory = memory(0x1000);
    let event = || EventFd::new(0).unwrap();
    let ring = virtio_queue::Queue::new(8).unwrap();
    let mut queue = VirtQueue::new(ring, Arc::clone(&memory), event(), event());
    assert!(queue.pop().unwrap().is_none());
    queue.disable_notifications().unwrap();
    assert!(!queue.enable_notifications().unwrap());
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0)).unwrap(), 0);
}

proptest! {
    /// Whatever is in the rings: walking all chains ends, and none has more than 65535 parts.
    #[test]
    fn any_rings_can_be_walked(
        descriptors in prop::collection::vec(
            (0..MEMORY as u64 + 0x1000, 0_u32..0x4000, any::<u16>(), 0_u16..20), 16),
        heads in prop::collection::vec(0_u16..20, 1..16),
        index in prop_oneof![3 => 0_u16..17, 1 => any::<u16>()],
        event_idx in any::<bool>(),
    ) {
        let (mut driver, mut device) = pair(16, event_idx);
        for (i, (address, length, flags, next)) in (0..).zip(descriptors) {
            driver.set_descriptor(i, buffer(address, length), flags & 7, next);
        }
        for head in heads {
            driver.make_available(head);
        }
        driver.set_available_index(index);
        let mut popped = 0;
        while let Ok(Some(chain)) = device.pop() {
            popped += 1;
            let head = chain.head_index();
            let length = chain.clone().count();
            prop_assert!(length <= usize::from(u16::MAX));
            prop_assert_eq!(device.push(head, 0).is_ok(), head < 16);
            device.signal().unwrap();
        }
        prop_assert!(popped <= 16);
        device.enable_notifications().unwrap();
    }
}

#[test]
fn chains_that_are_returned_together_are_seen_together() {
    let (mut driver, mut device) = pair(4, true);
    // Around the ring, and around the index, too.
    for round in 0..40_000_u32 {
        let heads = [0; 3].map(|_| driver.receive(0));
        while device.pop().unwrap().is_some() {}
        driver.set_used_event((3 * round + 1) as u16);
        device.push_all(&[(heads[0], 7)]).unwrap();
        device.signal().unwrap();
        assert!(device.call().read().is_err());
        device
            .push_all(&[(heads[1], round), (heads[2], 9)])
            .unwrap();
        device.signal().unwrap();
        // Asked for at the first of the two.
        assert_eq!(device.call().read().unwrap(), 1);
        device.signal().unwrap();
        assert!(device.call().read().is_err());
        for (head, written) in heads.into_iter().zip([7, round, 9]) {
            assert_eq!(driver.used(), Some((head.into(), written)));
        }
        assert_eq!(driver.used(), None);
    }
    assert!(device.push_all(&[(4, 0), (0, 0)]).is_err());
    device.push_all(&[]).unwrap();
    assert_eq!(driver.used(), None);
}
