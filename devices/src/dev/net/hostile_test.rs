//! Drivers that keep no rule.

use proptest::prelude::*;
use vmm_sys_util::epoll::EventSet;

use super::features::{CTRL_VQ, MRG_RXBUF};
use super::guest_test::{Guest, packet, wire};
use super::receive::{Received, Receiver};
use super::*;
use crate::testing::{Buffer, DriverQueue, memory};

#[test]
fn buffers_that_are_none_come_back() {
    let memory = memory(1 << 20);
    let (tap, theirs, _) = wire();
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = driver.device_end(true);
    let mut receiver = Receiver::new("eth0", MRG_RXBUF, &memory);
    let outside = Buffer {
        address: 2 << 20,
        length: 100,
        writable: true,
    };
    driver.add(&[outside]);
    driver.send(&[0; 100]);
    driver.receive(12);
    driver.receive(100);
    nix::unistd::write(&theirs, &packet(60, 0)).unwrap();
    let received = receiver.receive(&mut queue, &tap).unwrap();
    assert_eq!(received, Received::Starved);
    let used: Vec<_> = std::iter::from_fn(|| driver.used()).collect();
    assert_eq!(used, [(0, 0), (1, 0), (2, 0), (3, 72)]);
    assert_eq!(receiver.dropped(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever descriptors there are, of whatever queue, the device comes to rest, and the other
    /// queues go on.
    #[test]
    fn any_descriptors_are_survived(
        queue in 0..3_usize,
        features in any::<u64>(),
        descriptors in prop::collection::vec(
            (prop_oneof![0x10_0000..0x100_0000_u64, any::<u64>()],
             prop_oneof![0..2000_u32, 0..70_000_u32, any::<u32>()],
             0..8_u16, prop_oneof![0..16_u16, any::<u16>()]), 16),
        heads in prop::collection::vec(0..16_u16, 0..40),
        packets in prop::collection::vec(0..3000_usize, 0..8),
    ) {
        let mut guest = Guest::new(1, features | CTRL_VQ);
        for (index, (address, length, flags, next)) in (0..).zip(descriptors) {
            let buffer = Buffer { address, length, writable: false };
            guest.drivers[queue].set_descriptor(index, buffer, flags, next);
        }
        for head in heads {
            guest.drivers[queue].make_available(head);
        }
        for length in packets {
            guest.to_tap(0, &packet(length, 1));
        }
        guest.kick(queue).unwrap();
        guest.settle(100);
        while guest.at_tap(0).is_some() {
            guest.settle(100);
        }
        if queue != 1 {
            guest.send(1, &packet(60, 9), &[]);
            guest.kick(1).unwrap();
            prop_assert_eq!(guest.at_tap(0).unwrap(), packet(60, 9));
        }
        if queue != 2 {
            prop_assert_eq!(guest.command(2, &[255, 0]), 1);
        }
    }

    /// Whatever rings say, calls return.
    #[test]
    fn any_rings_are_survived(
        queue in 0..3_usize,
        heads in prop::collection::vec(any::<u16>(), 1..40),
        index in any::<u16>(),
    ) {
        let mut guest = Guest::new(1, MRG_RXBUF | CTRL_VQ);
        for head in heads {
            guest.drivers[queue].make_available(head);
        }
        guest.drivers[queue].set_available_index(index);
        guest.to_tap(0, &packet(60, 1));
        let _ = guest.kick(queue);
        let _ = guest.ready(0, EventSet::IN);
        guest.start(0);
    }

    /// Whatever buffers of whatever lengths: packets come whole and in order, or not at all.
    #[test]
    fn packets_come_whole_and_in_order(
        buffers in prop::collection::vec(13..4000_usize, 1..250),
        lengths in prop::collection::vec(prop_oneof![1..1514_usize, 1..65_536_usize], 1..4),
    ) {
        let mut guest = Guest::new(1, MRG_RXBUF);
        for (seed, length) in (0..).zip(&lengths) {
            guest.to_tap(0, &packet(*length, seed));
        }
        for chunk in buffers.chunks(7) {
            for &length in chunk {
                guest.provide(0, &[length]);
            }
            let _ = guest.kick(0);
            guest.settle(20);
        }
        let mut got = 0;
        for (seed, length) in (0..).zip(&lengths) {
            if let Some(received) = guest.receive(0) {
                prop_assert!(received == packet(*length, seed));
                got += received.len();
            }
        }
        prop_assert_eq!(guest.receive(0), None);
        let room: usize = buffers.iter().sum();
        prop_assert!(got > 0 || room < lengths[0] + HEADER);
    }
}
