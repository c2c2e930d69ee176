//! Drivers that keep no rule.

use std::io::Write;

use proptest::prelude::*;

use super::guest_test::*;
use super::packet::{Address, HEADER, Packet, operation};
use super::*;
use crate::testing::Buffer;

/// Numbers among which there are those that mean something.
fn port(known: u32) -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(known), 1 => Just(known + 1), 1 => any::<u32>()]
}

fn any_packet(host: u32) -> impl Strategy<Value = Packet> {
    let addresses = (
        prop_oneof![8 => Just(u64::from(CID)), 1 => any::<u64>()],
        prop_oneof![8 => Just(2_u64), 1 => any::<u64>()],
        prop_oneof![8 => Just(5), 1 => any::<u32>()],
        port(host),
    );
    let rest = (
        prop_oneof![8 => 0..300_u32, 1 => any::<u32>()],
        prop_oneof![8 => Just(1_u16), 1 => any::<u16>()],
        prop_oneof![8 => 0..9_u16, 1 => any::<u16>()],
        prop_oneof![0..8_u32, any::<u32>()],
        prop_oneof![0..5000_u32, any::<u32>()],
        prop_oneof![0..5000_u32, any::<u32>()],
    );
    (addresses, rest).prop_map(
        |((from, to, guest, host), (length, kind, operation, flags, buf_alloc, fwd_cnt))| Packet {
            source: Address {
                cid: from,
                port: guest,
            },
            destination: Address {
                cid: to,
                port: host,
            },
            length,
            kind,
            operation,
            flags,
            buf_alloc,
            fwd_cnt,
        },
    )
}

/// Another connection, which has to go on.
fn check_goes_on(guest: &mut Guest) {
    while guest.receive().is_some() {}
    let mut program = guest.program("CONNECT 6\n");
    let request = guest.expect(operation::REQUEST);
    let ports = Ports {
        host: request.source.port,
        guest: 6,
    };
    guest.send(ports, operation::RESPONSE, &[]);
    guest.send(ports, operation::RW, b"goes on");
    guest.settle();
    assert!(read(&mut program).ends_with(b"\ngoes on"));
}

#[test]
fn buffers_that_are_none_come_back() {
    let mut guest = Guest::new(0);
    guest.provide_chain(&[HEADER]);
    guest.provide_chain(&[3]);
    guest.drivers[RX].send(&[0; 100]);
    // A header in more pieces than one call of the kernel takes.
    guest.provide_chain(&[1; 40]);
    guest.provide_chain(&[100]);
    let _program = guest.program("CONNECT 5\n");
    guest.settle();
    let used: Vec<_> = std::iter::from_fn(|| guest.drivers[RX].used()).collect();
    let lengths: Vec<_> = used.iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [0, 0, 0, 0, HEADER as u32]);
}

#[test]
fn memory_that_does_not_exist_is_an_error_of_the_driver() {
    for queue in [RX, TX] {
        let mut guest = Guest::new(0);
        let (outside, writable) = (1 << 40, queue == RX);
        guest.drivers[queue].add(&[buffer(outside, 100, writable)]);
        guest.queues[queue].kick().write(1).unwrap();
        let _program = guest.program("CONNECT 5\n");
        let mut turns = std::iter::from_fn(|| Some(guest.turn()));
        let error = turns.by_ref().take(10).find_map(Result::err).unwrap();
        assert!(error.to_string().contains("0x10000000000"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever packets come of a connection, the device comes to rest and other connections go on.
    #[test]
    fn any_packets_are_survived(
        packets in prop::collection::vec((any_packet(1 << 10), 0..300_usize, any::<bool>()), 1..40),
        accepted in any::<bool>(),
        written in 0..5000_usize,
    ) {
        let mut guest = Guest::new(8);
        let (mut program, ports) = guest.ask(5);
        prop_assert_eq!(ports.host, 1 << 10);
        if accepted {
            guest.send(ports, operation::RESPONSE, &[]);
        }
        guest.settle();
        let _ = program.write_all(&vec![1; written]);
        for (packet, length, settles) in packets {
            guest.send_raw(&packet.bytes(), &vec![2; length], &[HEADER]);
            if settles {
                guest.settle();
                read(&mut program);
            }
        }
        check_goes_on(&mut guest);
        drop(program);
        guest.settle();
    }

    /// Whatever descriptors there are, calls return, and a reset makes all good.
    #[test]
    fn any_descriptors_are_survived(
        queue in 0..3_usize,
        descriptors in prop::collection::vec(
            (prop_oneof![0x40_0000..0x100_0000_u64, any::<u64>()],
             prop_oneof![0..100_u32, 0..70_000_u32, any::<u32>()],
             0..8_u16, prop_oneof![0..8_u16, any::<u16>()]), 8),
        heads in prop::collection::vec(prop_oneof![0..8_u16, any::<u16>()], 0..40),
        index in prop::option::of(any::<u16>()),
    ) {
        let mut guest = Guest::new(0);
        for (index, (address, length, flags, next)) in (0..).zip(descriptors) {
            let buffer = Buffer { address, length, writable: false };
            guest.drivers[queue].set_descriptor(index, buffer, flags, next);
        }
        for head in heads {
            guest.drivers[queue].make_available(head);
        }
        if let Some(index) = index {
            guest.drivers[queue].set_available_index(index);
        }
        let _programs = [guest.program("CONNECT 5\n"), guest.program("CONN")];
        guest.queues[queue].kick().write(1).unwrap();
        for _ in 0..100 {
            if !matches!(guest.turn(), Ok(true)) {
                break;
            }
        }
        guest.start();
        guest.provide(8);
        check_goes_on(&mut guest);
    }
}
