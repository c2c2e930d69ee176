//! Real taps, in a network namespace of their own; left out where there can be none.

use std::net::UdpSocket;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use vmm_sys_util::epoll::EventSet;

use super::features::{ANY_TAP, CTRL_VQ, GUEST_CSUM, MQ, MRG_RXBUF, USO};
use super::guest_test::{Guest, MAC, poll};
use super::*;

/// Makes a tap device with an address, and `test`s it on a thread of its own.
fn with_tap(queues: u16, test: impl FnOnce(Vec<Tap>) + Send + 'static) {
    let thread = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return eprintln!("left out: no network namespace: {error}");
        }
        let taps = match Tap::tun("tst0", queues) {
            Ok(taps) => taps,
            Err(error) => return eprintln!("left out: {error}"),
        };
        for command in ["addr add 10.9.9.1/24 dev tst0", "link set tst0 up"] {
            if !ip(command) {
                return eprintln!("left out: ip {command}");
            }
        }
        test(taps);
    });
    thread.join().unwrap();
}

fn ip(command: &str) -> bool {
    let status = Command::new("ip").args(command.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// The next packet for the guest of this Ethernet type.
fn next_packet(guest: &mut Guest, kind: [u8; 2]) -> Vec<u8> {
    loop {
        if let Some(packet) = guest.receive(0) {
            guest.provide(0, &[2000]);
            if packet[24..26] == kind {
                return packet;
            }
            continue;
        }
        guest.settle(100);
        if !guest.watched(0).is_empty() {
            let happened = poll(guest.taps[0], 20_000);
            assert_ne!(happened, EventSet::empty(), "no packet");
        }
    }
}

/// Answers the host's question who 10.9.9.2 is.
fn arp(guest: &mut Guest) {
    let question = next_packet(guest, [8, 6]);
    let mut answer = vec![0; HEADER];
    let host = &question[HEADER + 6..HEADER + 12];
    answer.extend([host, &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat());
    answer.extend([&MAC, &[10, 9, 9, 2][..], host, &[10, 9, 9, 1]].concat());
    guest.send(1, &answer, &[HEADER]);
    guest.kick(1).unwrap();
}

#[test]
fn the_host_talks_to_the_guest_until_the_interface_is_removed() {
    with_tap(2, |taps| {
        assert_eq!(taps[0].probe_offloads().unwrap() & ANY_TAP, ANY_TAP);
        let features = CTRL_VQ | MQ | MRG_RXBUF | GUEST_CSUM;
        let mut guest = Guest::with_taps(taps, features);
        for _ in 0..8 {
            guest.provide(0, &[2000]);
        }
        let host = UdpSocket::bind("10.9.9.1:1234").unwrap();
        host.send_to(b"hello", "10.9.9.2:4321").unwrap();
        arp(&mut guest);
        let packet = next_packet(&mut guest, [8, 0]);
        assert!(packet.ends_with(b"hello"));
        // VIRTIO_NET_HDR_F_NEEDS_CSUM, at the UDP header's place.
        assert_eq!((packet[0], packet[6..10].to_vec()), (1, vec![34, 0, 6, 0]));

        // The same by another way round: two pairs, and one again.
        assert_eq!(guest.command(4, &[4, 0, 2, 0]), 0);
        assert!(guest.watched(1) == EventSet::IN);
        assert_eq!(guest.command(4, &[4, 0, 1, 0]), 0);
        assert_eq!(guest.watched(1), EventSet::empty());

        // A runt, and a header that makes no sense.
        guest.send(1, &[0; HEADER + 5], &[]);
        guest.send(1, &[0xff; 200], &[]);
        guest.kick(1).unwrap();
        assert!(ip("link del tst0"));
        guest.settle(4);
        assert_eq!(guest.watched(0), EventSet::empty());
        guest.send(1, &[0; 100], &[]);
        guest.kick(1).unwrap();
        let used = std::iter::from_fn(|| guest.drivers[1].used()).count();
        assert_eq!(used, 4);
        guest.device.stop();
    });
}

#[test]
fn a_driver_that_is_spared_nothing_gets_checksums() {
    with_tap(1, |taps| {
        let mut guest = Guest::with_taps(taps, 0);
        for _ in 0..8 {
            guest.provide(0, &[2000]);
        }
        let host = UdpSocket::bind("10.9.9.1:1234").unwrap();
        host.send_to(b"hello", "10.9.9.2:4321").unwrap();
        arp(&mut guest);
        let packet = next_packet(&mut guest, [8, 0]);
        assert!(packet.ends_with(b"hello"));
        assert_eq!(packet[..HEADER], [0; HEADER]);
    });
}

#[test]
fn offloads_are_what_the_kernel_takes() {
    with_tap(1, |taps| {
        let taken = taps[0].probe_offloads().unwrap();
        for flags in [ANY_TAP, libc::TUN_F_UFO, USO] {
            let set = taps[0].set_offloads(libc::TUN_F_CSUM | flags);
            assert_eq!(set.is_ok(), taken & flags == flags, "{flags:#x}");
        }
    });
}

#[test]
fn a_name_that_is_none_and_a_device_that_is_none_are_refused() {
    for name in ["", "a name that is too long", "a\0b"] {
        let error = Tap::tun(name, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    let error = Tap::macvtap("/dev/null".as_ref(), 1).unwrap_err();
    assert!(error.to_string().contains("/dev/null"), "{error}");
}
