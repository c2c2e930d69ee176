//! The device in user space, with Unix sockets.

use std::io::Write;
use std::os::unix::net::UnixListener;

use super::guest_test::*;
use super::packet::{HEADER, operation};
use super::table::PLACES;
use super::*;

#[test]
fn the_configuration_is_what_the_driver_reads() {
    let guest = Guest::new(0);
    let traits = guest.device.traits();
    assert!(traits.own_loop);
    assert_eq!((traits.features, traits.queue_sizes.len()), (0, 3));
    let mut bytes = [0xff; 8];
    traits.config.read(0, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), u64::from(CID));
    let folder = tempfile::TempDir::new().unwrap();
    for cid in [0, 1, 2, u32::MAX] {
        let path = folder.path().join(cid.to_string());
        let backend = Backend::User(UnixListener::bind(path).unwrap());
        let error = new(Config { cid, backend }).err().unwrap().to_string();
        assert_eq!(error, format!("vsock: {cid} is no address of a guest"));
    }
}

#[test]
fn bytes_go_both_ways() {
    let mut guest = Guest::new(32);
    let (mut program, ports) = guest.connect(5);
    for round in 0..50 {
        let sent = pattern(round, 1 + 97 * round);
        guest.send(ports, operation::RW, &sent);
        guest.settle();
        assert!(read(&mut program) == sent);

        program.write_all(&sent).unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let (packet, data) = guest.receive().unwrap();
            assert_eq!(packet.operation, operation::RW);
            got.extend(data);
        }
        assert!(got == sent);
        let mut update = packet(ports, operation::CREDIT_UPDATE);
        update.fwd_cnt = (0..=round).map(|round| 1 + 97 * round as u32).sum();
        guest.send_raw(&update.bytes(), &[], &[]);
    }
}

#[test]
fn headers_and_data_may_be_in_pieces() {
    let mut guest = Guest::new(4);
    let (mut program, ports) = guest.connect(5);
    let sent = pattern(0, 300);
    let mut header = packet(ports, operation::RW);
    header.length = 300;
    let ones = [1; 200];
    for pieces in [&[][..], &[44], &[43], &[45, 1, 2], &[1, 43, 299], &ones] {
        guest.send_raw(&header.bytes(), &sent, pieces);
        guest.settle();
        assert!(read(&mut program) == sent, "{pieces:?}");
    }
    // The other way round: the buffers that were provided first, then these.
    let mut guest = Guest::new(1);
    let (mut program, _) = guest.connect(5);
    program.write_all(&pattern(0, 10)).unwrap();
    assert_eq!(guest.receive().unwrap().1, pattern(0, 10));
    let mut guest = Guest::new(0);
    guest.provide_chain(&[40, 4, 8]);
    guest.provide_chain(&[30, 20, 5]);
    let mut program = guest.program("CONNECT 9\n");
    guest.settle();
    let (head, length) = guest.drivers[RX].used().unwrap();
    assert_eq!(length as usize, HEADER);
    let first = guest.drivers[RX].contents(head, 40);
    let port = u32::from_le_bytes(first[16..20].try_into().unwrap());
    let ports = Ports {
        host: port,
        guest: 9,
    };
    guest.send(ports, operation::RESPONSE, &[]);
    program.write_all(b"0123456789ab").unwrap();
    guest.settle();
    let (head, length) = guest.drivers[RX].used().unwrap();
    assert_eq!(length as usize, HEADER + 11);
    let (second, third) = (
        guest.drivers[RX].contents(head + 1, 20),
        guest.drivers[RX].contents(head + 2, 5),
    );
    assert_eq!([&second[14..], &third].concat(), b"0123456789a");
}

#[test]
fn a_guest_that_refuses_closes_the_program() {
    let mut guest = Guest::new(4);
    let (mut program, ports) = guest.ask(5);
    assert!(!is_at_end(&mut program));
    guest.send(ports, operation::RST, &[]);
    guest.settle();
    assert!(is_at_end(&mut program));
    guest.expect_nothing();
}

#[test]
fn what_a_guest_asks_for_or_nobody_knows_is_refused() {
    let mut guest = Guest::new(8);
    let (_program, known) = guest.connect(5);
    let unknown = [
        Ports { host: 80, guest: 4 },
        Ports { guest: 4, ..known },
        Ports {
            host: known.host + 1,
            ..known
        },
        Ports {
            host: known.host + u32::from(PLACES),
            ..known
        },
    ];
    for ports in unknown {
        for operation in (0..10).filter(|&operation| operation != operation::RST) {
            guest.send(ports, operation, &[]);
            let reset = guest.expect(operation::RST);
            let ends = (reset.source.port, reset.destination.port);
            assert_eq!(ends, (ports.host, ports.guest));
        }
        // No answer to the answer.
        guest.send(ports, operation::RST, &[]);
        guest.expect_nothing();
    }
}

#[test]
fn another_type_is_refused_and_other_addresses_are_ignored() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    let mut other = packet(ports, operation::RW);
    other.kind = 2;
    guest.send_raw(&other.bytes(), &[], &[]);
    assert_eq!(guest.expect(operation::RST).kind, 2);
    for (source, destination) in [(CID + 1, 2), (CID, 3), (2, CID)] {
        let mut lie = packet(ports, operation::RST);
        lie.source.cid = source.into();
        lie.destination.cid = destination.into();
        guest.send_raw(&lie.bytes(), &[], &[]);
    }
    guest.expect_nothing();
    guest.send(ports, operation::RW, b"still there");
    guest.settle();
    assert_eq!(read(&mut program), b"still there");
}

#[test]
fn a_length_that_is_not_there_ends_the_connection() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    let mut lie = packet(ports, operation::RW);
    // More is there than it says.
    lie.length = 3;
    guest.send_raw(&lie.bytes(), b"abcdef", &[HEADER]);
    guest.settle();
    assert_eq!(read(&mut program), b"abc");
    lie.length = 7;
    guest.send_raw(&lie.bytes(), b"abcdef", &[HEADER]);
    guest.expect(operation::RST);
    // A header that is none is not answered.
    guest.send_raw(&lie.bytes()[..43], &[], &[]);
    guest.expect_nothing();
}

#[test]
fn events_buffers_stay_where_they_are() {
    let mut guest = Guest::new(1);
    guest.drivers[EVENT].receive(4);
    guest.kick(EVENT).unwrap();
    assert_eq!(guest.drivers[EVENT].used(), None);
}

#[test]
fn a_reset_ends_all_connections() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    let (mut asked, _) = guest.ask(5);
    let mut silent = guest.program("");
    guest.settle();
    guest.start();
    for program in [&mut program, &mut asked, &mut silent] {
        assert!(is_at_end(program));
    }
    guest.provide(8);
    guest.send(ports, operation::RW, b"old");
    guest.expect(operation::RST);
    let (mut program, new) = guest.connect(5);
    assert_ne!(new.host, ports.host);
    guest.send(new, operation::RW, b"new");
    guest.settle();
    assert_eq!(read(&mut program), b"new");
}

#[test]
fn programs_wait_while_there_is_no_driver() {
    let mut guest = Guest::new(8);
    guest.device.stop();
    guest.watch.watched.clear();
    let _program = guest.program("CONNECT 7\n");
    guest.start();
    guest.provide(8);
    assert_eq!(guest.expect(operation::REQUEST).destination.port, 7);
}

#[test]
fn what_is_sent_last_gets_out() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    for round in 0..120 {
        guest.send(ports, operation::RW, &[round]);
    }
    let mut turns = 1;
    while !guest.device.drained(&mut guest.queues, &mut guest.watch) {
        turns += 1;
    }
    assert_eq!(turns, 2);
    assert_eq!(read(&mut program), (0..120).collect::<Vec<_>>());
}

#[test]
fn a_stream_is_not_mixed_up_whatever_its_speed() {
    let mut guest = Guest::new(3);
    let mut connections: Vec<_> = (0..5).map(|port| guest.connect(port)).collect();
    let mut got = vec![Vec::new(); 5];
    let mut written = [0; 5];
    let length = 300_000;
    while got.iter().any(|got| got.len() < length) {
        for (index, (program, _)) in connections.iter_mut().enumerate() {
            let step = (7000 * (index + 1)).min(length - written[index]);
            let part = pattern(index + written[index], step);
            written[index] += program.write(&part).unwrap_or(0);
        }
        while let Some((packet, data)) = guest.receive() {
            let index = packet.destination.port as usize;
            got[index].extend(data);
            let mut update = super::guest_test::packet(connections[index].1, 6);
            update.fwd_cnt = got[index].len() as u32;
            guest.send_raw(&update.bytes(), &[], &[]);
        }
    }
    for (index, got) in got.iter().enumerate() {
        assert!(*got == pattern(index, length), "{index}");
    }
}
