//! The device in user space, with sockets for taps.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use vmm_sys_util::epoll::EventSet;

use super::features::{GUEST_CSUM, MQ, MRG_RXBUF};
use super::guest_test::{Guest, MAC, config, packet, wire};
use super::interface::QUEUE_SIZE;
use super::transmit::Transmitter;
use super::*;
use crate::queue::turn::Turn;
use crate::testing::{DriverQueue, memory};

#[test]
fn the_configuration_is_what_the_driver_reads() {
    let (first, ..) = wire();
    let (second, ..) = wire();
    let traits = new(config(vec![first, second])).unwrap().traits();
    assert_eq!(traits.queue_sizes, [256, 256, 256, 256, 64]);
    assert!(traits.own_loop);
    let mut bytes = [0; 12];
    traits.config.read(0, &mut bytes);
    assert_eq!(bytes[..6], MAC);
    // Link up, two pairs, MTU.
    assert_eq!(bytes[6..], [1, 0, 2, 0, 0xdc, 5]);
    assert_ne!(traits.features & MQ, 0);
    let single = new(config(vec![wire().0])).unwrap().traits();
    assert_eq!(single.features & MQ, 0);
    assert_eq!(single.features | MQ, traits.features);
}

#[test]
fn descriptors_are_taps_unless_the_second_half_is_vhosts() {
    let adopt = |count| {
        let descriptors = (0..count).map(|_| wire().1).collect();
        let config = Config::adopt("eth0".to_owned(), MAC, 1500, descriptors);
        (config.queues.len(), config.vhost.len())
    };
    for count in 0..5 {
        assert_eq!(adopt(count), (count, 0));
    }
    let Ok(vhost) = std::fs::File::open("/dev/vhost-net") else {
        return eprintln!("left out: no /dev/vhost-net");
    };
    let descriptors = vec![wire().1, vhost.into()];
    let config = Config::adopt("eth0".to_owned(), MAC, 1500, descriptors);
    assert_eq!((config.queues.len(), config.vhost.len()), (1, 1));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_by_name() {
    let refused = |change: fn(&mut Config), what: &str| {
        let mut config = config(vec![wire().0]);
        change(&mut config);
        let error = new(config).err().unwrap().to_string();
        assert!(error.contains("eth0") && error.contains(what), "{error}");
    };
    refused(|c| c.queues.clear(), "queue pairs");
    refused(|c| c.mtu = 67, "MTU");
    refused(|c| c.mac = [0; 6], "address");
    refused(|c| c.mac[0] = 1, "address");
    refused(|c| c.vhost = vec![null(), null()], "vhost-net");
    // Not a vhost-net file.
    refused(|c| c.vhost = vec![null()], "ioctl");
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

#[test]
fn packets_go_both_ways_with_their_headers() {
    for features in [0, MRG_RXBUF | GUEST_CSUM] {
        let mut guest = Guest::new(1, features);
        for seed in 0..100 {
            let mut sent = packet(1514, seed);
            sent[..10].fill(seed);
            guest.send(1, &sent, &[12, 14][..usize::from(seed % 3)]);
            guest.kick(1).unwrap();
            assert_eq!(guest.at_tap(0).unwrap(), sent);
            assert_eq!(guest.drivers[1].used().map(|(_, length)| length), Some(0));

            guest.provide(0, &[1526]);
            guest.to_tap(0, &sent);
            guest.settle(4);
            let mut got = guest.receive(0).unwrap();
            if features & GUEST_CSUM == 0 {
                assert_eq!(got[0], 0);
                got[0] = seed;
            }
            // num_buffers.
            sent[10..12].fill(0);
            assert!(got == sent, "{seed}");
        }
    }
}

#[test]
fn a_header_may_be_in_pieces() {
    let mut guest = Guest::new(1, 0);
    let sent = packet(60, 3);
    guest.send(1, &sent, &[1, 9, 3, 1]);
    guest.kick(1).unwrap();
    assert_eq!(guest.at_tap(0).unwrap(), sent);
    let head = guest.provide(0, &[11, 1, 1, 200]);
    guest.to_tap(0, &sent);
    guest.settle(4);
    assert_eq!(guest.drivers[0].used(), Some((head.into(), 72)));
    // num_buffers is 1, across two buffers.
    assert_eq!(guest.drivers[0].contents(head.into(), 11)[10], 1);
    assert_eq!(guest.drivers[0].contents(u32::from(head) + 1, 1), [0]);
    assert_eq!(
        guest.drivers[0].contents(u32::from(head) + 2, 1),
        [sent[12]]
    );
}

#[test]
fn a_long_packet_is_spread_over_small_buffers() {
    let mut guest = Guest::new(1, MRG_RXBUF);
    let long = packet(65_535, 7);
    for round in 0..10 {
        for _ in 0..50 {
            guest.provide(0, &[1536]);
        }
        guest.to_tap(0, &long);
        guest.to_tap(0, &packet(60, round));
        guest.settle(8);
        assert!(guest.receive(0).unwrap() == long);
        assert_eq!(guest.receive(0).unwrap(), packet(60, round));
        assert_eq!(guest.receive(0), None);
        // Those that are left over are for the next packets.
        for seed in 0..6 {
            guest.to_tap(0, &packet(1500, seed));
        }
        guest.settle(8);
        for seed in 0..6 {
            assert!(guest.receive(0).unwrap() == packet(1500, seed));
        }
    }
}

#[test]
fn a_packet_waits_for_the_buffers_that_it_needs() {
    let mut guest = Guest::new(1, MRG_RXBUF);
    let long = packet(60_000, 9);
    guest.provide(0, &[1000]);
    guest.to_tap(0, &long);
    guest.to_tap(0, &packet(60, 1));
    guest.settle(4);
    for _ in 0..12 {
        assert_eq!(guest.receive(0), None);
        assert_eq!(guest.watched(0), EventSet::empty());
        guest.provide(0, &[5000]);
        guest.kick(0).unwrap();
    }
    assert!(guest.receive(0).unwrap() == long);
    guest.provide(0, &[1526]);
    guest.settle(4);
    assert_eq!(guest.receive(0).unwrap(), packet(60, 1));
}

#[test]
fn a_packet_that_never_fits_is_lost_and_the_next_one_comes() {
    let mut guest = Guest::new(1, MRG_RXBUF);
    for _ in 0..QUEUE_SIZE {
        guest.provide(0, &[100]);
    }
    guest.to_tap(0, &packet(60_000, 0));
    // A giant.
    guest.to_tap(0, &packet(MAX_PACKET, 0));
    guest.to_tap(0, &[0; HEADER]);
    guest.to_tap(0, &[0; 3]);
    guest.to_tap(0, &packet(60, 5));
    guest.settle(8);
    assert_eq!(guest.receive(0).unwrap(), packet(60, 5));
    assert_eq!(guest.receive(0), None);
}

#[test]
fn without_mergeable_buffers_one_chain_has_to_do() {
    let mut guest = Guest::new(1, 0);
    guest.provide(0, &[1526]);
    guest.provide(0, &[65_562]);
    guest.to_tap(0, &packet(1515, 1));
    guest.to_tap(0, &packet(1514, 2));
    guest.to_tap(0, &packet(65_535, 3));
    guest.settle(8);
    assert!(guest.receive(0).unwrap() == packet(1514, 2));
    assert!(guest.receive(0).unwrap() == packet(65_535, 3));
    assert_eq!(guest.receive(0), None);
}

#[test]
fn a_tap_is_not_watched_while_the_guest_has_no_buffers() {
    let mut guest = Guest::new(1, MRG_RXBUF);
    assert_eq!(guest.watched(0), EventSet::IN);
    guest.to_tap(0, &packet(60, 1));
    guest.settle(2);
    assert_eq!(guest.watched(0), EventSet::empty());
    guest.provide(0, &[1526]);
    guest.kick(0).unwrap();
    assert_eq!(guest.receive(0).unwrap(), packet(60, 1));
    assert!(guest.queues[0].call().read().is_ok());
    guest.provide(0, &[1526]);
    guest.kick(0).unwrap();
    assert_eq!(guest.watched(0), EventSet::IN);
    // A kick does not read what the loop will tell of.
    guest.to_tap(0, &packet(60, 2));
    guest.kick(0).unwrap();
    assert_eq!(guest.receive(0), None);
    guest.settle(2);
    assert_eq!(guest.receive(0).unwrap(), packet(60, 2));
}

#[test]
fn a_guest_waits_for_a_tap_that_takes_no_more() {
    let mut guest = Guest::new(1, 0);
    let mut sent = 0_u8;
    while guest.watched(0) == EventSet::IN {
        guest.send(1, &packet(40_000, sent), &[]);
        guest.kick(1).unwrap();
        sent += 1;
        assert!(sent < 200, "it takes everything");
    }
    assert_eq!(guest.watched(0), EventSet::IN | EventSet::OUT);
    for seed in 0..sent {
        assert!(guest.at_tap(0).unwrap() == packet(40_000, seed));
        guest.settle(8);
    }
    assert_eq!(guest.watched(0), EventSet::IN);
    let used = std::iter::from_fn(|| guest.drivers[1].used()).count();
    assert_eq!(used, usize::from(sent));
}

#[test]
fn what_the_host_refuses_is_lost() {
    let mut guest = Guest::new(1, 0);
    // Nothing at all, and a giant.
    guest.provide(1, &[100]);
    guest.send(1, &packet(MAX_PACKET, 0), &[]);
    guest.send(1, &packet(60, 1), &[]);
    guest.kick(1).unwrap();
    assert_eq!(guest.at_tap(0).unwrap(), packet(60, 1));
    assert_eq!(guest.at_tap(0), None);
    let used = std::iter::from_fn(|| guest.drivers[1].used()).count();
    assert_eq!(used, 3);
}

#[test]
fn an_error_of_the_socket_is_a_lost_packet() {
    let memory = memory(1 << 20);
    let (tap, _theirs, _) = wire();
    // It takes no packet that is longer.
    setsockopt(&socket(&tap), sockopt::SndBuf, &4096).unwrap();
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = driver.device_end(true);
    driver.send(&[1; 60_000]);
    driver.send(&[2; 100]);
    let mut transmitter = Transmitter::new("eth0", &memory);
    assert_eq!(
        transmitter.transmit(&mut queue, &tap, true).unwrap(),
        Turn::Empty
    );
    assert_eq!(transmitter.dropped(), 1);
    assert_eq!(driver.used(), Some((0, 0)));
    assert_eq!(driver.used(), Some((1, 0)));
}

fn socket(tap: &Tap) -> BorrowedFd<'_> {
    #[allow(unsafe_code)]
    // SAFETY: the tap is borrowed as long.
    unsafe {
        BorrowedFd::borrow_raw(tap.as_raw_fd())
    }
}

#[test]
fn a_tap_that_is_gone_is_left_alone_and_the_guest_goes_on() {
    let mut guest = Guest::new(1, MRG_RXBUF);
    guest.provide(0, &[1526]);
    guest.wires.clear();
    guest.settle(2);
    guest.ready(0, EventSet::HANG_UP).unwrap();
    assert_eq!(guest.watched(0), EventSet::empty());
    for seed in 0..10 {
        guest.send(1, &packet(60, seed), &[]);
        guest.kick(1).unwrap();
        guest.provide(0, &[1526]);
        guest.kick(0).unwrap();
        assert!(guest.drivers[1].used().is_some());
        assert_eq!(guest.watched(0), EventSet::empty());
    }
    assert!(guest.device.drained(&mut guest.queues, &mut guest.watch));
}

#[test]
fn a_tap_that_goes_while_the_guest_waits_for_it_does_not_stop_the_guest() {
    let mut guest = Guest::new(1, 0);
    while !guest.watched(0).contains(EventSet::OUT) {
        guest.send(1, &packet(40_000, 0), &[]);
        guest.kick(1).unwrap();
        while guest.drivers[1].used().is_some() {}
    }
    guest.ready(0, EventSet::ERROR).unwrap();
    assert!(guest.drivers[1].used().is_some());
    assert_eq!(guest.watched(0), EventSet::empty());
}

#[test]
fn one_turn_is_bounded_and_another_one_follows() {
    let mut guest = Guest::new(1, MRG_RXBUF);
    for seed in 0..200 {
        guest.send(1, &packet(60, seed), &[]);
        guest.provide(0, &[1526]);
        guest.to_tap(0, &packet(60, seed));
    }
    guest.kick(1).unwrap();
    guest.ready(0, EventSet::IN).unwrap();
    let count = |guest: &mut Guest, queue: usize| {
        std::iter::from_fn(|| guest.drivers[queue].used()).count()
    };
    assert_eq!((count(&mut guest, 0), count(&mut guest, 1)), (64, 64));
    guest.settle(8);
    assert_eq!((count(&mut guest, 0), count(&mut guest, 1)), (136, 136));
}

#[test]
fn what_is_sent_last_gets_out() {
    let mut guest = Guest::new(1, 0);
    for seed in 0..200 {
        guest.send(1, &packet(60, seed), &[]);
    }
    let mut turns = 1;
    while !guest.device.drained(&mut guest.queues, &mut guest.watch) {
        turns += 1;
    }
    assert_eq!(turns, 4);
    assert_eq!(std::iter::from_fn(|| guest.at_tap(0)).count(), 200);
}

#[test]
fn a_reset_forgets_buffers_and_offloads() {
    let mut guest = Guest::new(1, MRG_RXBUF | GUEST_CSUM);
    guest.provide(0, &[1526]);
    guest.to_tap(0, &packet(60, 1));
    guest.settle(2);
    assert_eq!(*guest.requests[0].lock().unwrap(), [(tap::SET_OFFLOAD, 1)]);
    guest.start(0);
    assert_eq!(*guest.requests[0].lock().unwrap(), [(tap::SET_OFFLOAD, 0)]);
    guest.provide(0, &[1526]);
    guest.to_tap(0, &packet(60, 2));
    guest.settle(2);
    assert_eq!(guest.receive(0).unwrap(), packet(60, 2));
}
