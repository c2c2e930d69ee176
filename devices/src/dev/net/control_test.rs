//! Commands of the driver.

use vmm_sys_util::epoll::EventSet;

use super::features::{CTRL_GUEST_OFFLOADS, CTRL_VQ, GUEST_ANNOUNCE, GUEST_CSUM, MQ, MRG_RXBUF};
use super::guest_test::{Guest, packet};
use super::*;

const CONTROLS: u64 = CTRL_VQ | CTRL_GUEST_OFFLOADS | GUEST_ANNOUNCE;

#[test]
fn pairs_are_used_as_the_driver_asks() {
    let mut guest = Guest::new(3, CONTROLS | MQ | MRG_RXBUF);
    let watched = |guest: &Guest| [0, 1, 2].map(|pair| !guest.watched(pair).is_empty());
    assert_eq!(watched(&guest), [true, false, false]);
    // The loop has heard of it before it was detached.
    guest.ready(1, EventSet::IN | EventSet::ERROR).unwrap();
    // What comes too early is sent when the pair is used.
    guest.send(3, &packet(60, 3), &[]);
    guest.kick(3).unwrap();
    assert_eq!(guest.at_tap(1), None);
    for (pairs, answer) in [(0, 1), (4, 1), (0x8000, 1), (0xffff, 1), (2, 0)] {
        let pairs = u16::to_le_bytes(pairs);
        assert_eq!(guest.command(6, &[4, 0, pairs[0], pairs[1]]), answer);
    }
    assert_eq!(watched(&guest), [true, true, false]);
    assert_eq!(guest.at_tap(1).unwrap(), packet(60, 3));
    guest.provide(2, &[65_000]);
    guest.provide(2, &[65_000]);
    guest.to_tap(1, &packet(60, 4));
    guest.settle(2);
    assert_eq!(guest.receive(2).unwrap(), packet(60, 4));
    assert_eq!(guest.command(6, &[4, 0, 3, 0]), 0);
    assert_eq!(watched(&guest), [true, true, true]);
    assert_eq!(guest.command(6, &[4, 0, 1, 0]), 0);
    assert_eq!(watched(&guest), [true, false, false]);
    let (attach, detach) = (libc::IFF_ATTACH_QUEUE as u64, libc::IFF_DETACH_QUEUE as u64);
    let queue = |flag| (tap::SET_QUEUE, flag);
    for requests in &guest.requests[1..] {
        assert_eq!(*requests.lock().unwrap(), [queue(attach), queue(detach)]);
    }
}

#[test]
fn without_multiqueue_the_third_queue_is_that_for_commands() {
    let mut guest = Guest::new(2, CONTROLS);
    assert_eq!(guest.command(2, &[3, 0]), 0);
    assert_eq!(guest.command(2, &[4, 0, 1, 0]), 1);
    guest.kick(4).unwrap();
    let mut guest = Guest::new(1, 0);
    guest.drivers[2].send(&[3, 0]);
    guest.kick(2).unwrap();
    assert_eq!(guest.drivers[2].used(), None);
}

#[test]
fn commands_that_are_unknown_or_malformed_are_refused() {
    let mut guest = Guest::new(1, CONTROLS | GUEST_CSUM);
    for command in [
        &[3, 0][..],
        &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(guest.command(2, command), 0, "{command:?}");
    }
    for command in [
        &[3][..],
        &[3, 1],
        &[3, 0, 0],
        // Not negotiated: TSO4, MQ.
        &[5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0],
        &[4, 0, 1, 0],
        &[5, 0, 2, 0, 0, 0, 0, 0, 0],
        &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[5, 1, 2, 0, 0, 0, 0, 0, 0, 0],
        // RX mode, MAC table, VLAN, nothing.
        &[0, 0, 1],
        &[1, 1, 2, 0, 0, 0, 0, 1],
        &[2, 0, 1, 0],
        &[255, 255],
    ] {
        assert_eq!(guest.command(2, command), 1, "{command:?}");
    }
    let offloads = |value| (tap::SET_OFFLOAD, value);
    let all = [offloads(1), offloads(1), offloads(0)];
    assert_eq!(*guest.requests[0].lock().unwrap(), all);
    // Without a place for the answer nothing is done.
    guest.drivers[2].send(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    guest.kick(2).unwrap();
    assert_eq!(*guest.requests[0].lock().unwrap(), all);
    assert!(guest.drivers[2].used().is_some());
}
