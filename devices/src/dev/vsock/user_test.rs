//! The device in user space, with Unix sockets.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;

use super::credit::BUFFER;
use super::guest_test::*;
use super::packet::{HEADER, NO_RECEIVE, NO_SEND, operation};
use super::table::PLACES;
use super::*;

const BOTH: u32 = NO_RECEIVE | NO_SEND;

fn shutdown(guest: &mut Guest, ports: Ports, flags: u32) {
    let mut packet = packet(ports, operation::SHUTDOWN);
    packet.flags = flags;
    guest.send_raw(&packet.bytes(), &[], &[]);
}

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
fn a_program_that_does_not_read_holds_up_the_guest_by_its_credit_and_nobody_else() {
    let mut guest = Guest::new(8);
    let (mut stuck, ports) = guest.connect(5);
    let (mut other, others) = guest.connect(6);
    let mut sent = 0;
    let mut credit = BUFFER;
    while credit > 0 {
        let length = credit.min(30_000) as usize;
        guest.send(ports, operation::RW, &pattern(sent, length));
        sent += length;
        guest.settle();
        guest.send(ports, operation::CREDIT_REQUEST, &[]);
        // Told of by itself before perhaps.
        while let Some((packet, _)) = guest.receive() {
            assert_eq!(packet.operation, operation::CREDIT_UPDATE);
            credit = packet.buf_alloc - (sent as u32 - packet.fwd_cnt);
        }
    }
    for round in 0..50 {
        guest.send(others, operation::RW, &pattern(round, 9000));
        guest.settle();
        assert!(read(&mut other) == pattern(round, 9000));
    }
    while guest.receive().is_some() {}
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(read(&mut stuck));
        guest.settle();
    }
    assert!(got == pattern(0, sent));
    let update = guest.expect(operation::CREDIT_UPDATE);
    assert!(sent as u32 - update.fwd_cnt < BUFFER);
}

#[test]
fn a_guest_that_sends_more_than_it_may_loses_the_connection() {
    let mut guest = Guest::new(8);
    let (program, ports) = guest.connect(5);
    let (_stuck, others) = guest.connect(6);
    let mut packet = packet(ports, operation::RW);
    for length in [BUFFER + 1, u32::MAX] {
        packet.length = length;
        guest.send_raw(&packet.bytes(), &[0; 100], &[HEADER]);
    }
    guest.expect(operation::RST);
    guest.expect(operation::RST);
    drop(program);
    let mut sent = 0;
    let reset = loop {
        guest.send(others, operation::RW, &[7; 64 << 10]);
        sent += 64 << 10;
        match guest.receive() {
            Some((packet, _)) if packet.operation == operation::RST => break packet,
            _ => assert!(sent < 4 << 20, "it takes everything"),
        }
    };
    assert_eq!(reset.source.port, others.host);
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
fn the_guests_credit_is_kept_and_asked_for_once() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    let mut packet = packet(ports, operation::CREDIT_UPDATE);
    packet.buf_alloc = 1000;
    guest.send_raw(&packet.bytes(), &[], &[]);
    guest.settle();
    program.write_all(&pattern(0, 5000)).unwrap();
    assert_eq!(guest.receive().unwrap().1, pattern(0, 1000));
    guest.expect(operation::CREDIT_REQUEST);
    guest.expect_nothing();
    // An answer that is no more, and one that lies.
    guest.send_raw(&packet.bytes(), &[], &[]);
    packet.fwd_cnt = 1001;
    guest.send_raw(&packet.bytes(), &[], &[]);
    guest.expect_nothing();
    (packet.buf_alloc, packet.fwd_cnt) = (2000, 500);
    guest.send_raw(&packet.bytes(), &[], &[]);
    assert_eq!(guest.receive().unwrap().1, pattern(1000, 1500));
    guest.expect(operation::CREDIT_REQUEST);
    packet.buf_alloc = u32::MAX;
    guest.send_raw(&packet.bytes(), &[], &[]);
    assert_eq!(guest.receive().unwrap().1, pattern(2500, 2500));
    guest.expect_nothing();
}

#[test]
fn a_program_that_sends_no_more_still_receives() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    program.write_all(b"last").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive().unwrap().1, b"last");
    assert_eq!(guest.expect(operation::SHUTDOWN).flags, NO_SEND);
    guest.send(ports, operation::RW, b"answer");
    guest.settle();
    assert_eq!(read(&mut program), b"answer");
    assert!(!is_at_end(&mut program));
    shutdown(&mut guest, ports, BOTH);
    guest.expect(operation::RST);
    assert!(is_at_end(&mut program));
}

#[test]
fn a_guest_that_sends_no_more_still_receives() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    guest.send(ports, operation::RW, b"last");
    shutdown(&mut guest, ports, NO_SEND);
    guest.settle();
    assert_eq!(read(&mut program), b"last");
    assert!(is_at_end(&mut program));
    program.write_all(b"answer").unwrap();
    assert_eq!(guest.receive().unwrap().1, b"answer");
    // It said that there would be nothing more.
    guest.send(ports, operation::RW, b"more");
    guest.expect(operation::RST);
}

#[test]
fn a_guest_that_receives_no_more_still_sends() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    shutdown(&mut guest, ports, NO_RECEIVE);
    guest.settle();
    let error = program.write_all(b"nobody reads").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    guest.send(ports, operation::RW, b"more");
    guest.expect_nothing();
    assert_eq!(read(&mut program), b"more");
    drop(program);
    assert_eq!(guest.expect(operation::SHUTDOWN).flags, BOTH);
}

#[test]
fn what_a_guest_sent_before_it_closed_arrives_when_the_program_reads() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    let mut sent = 0;
    while sent < 10 * BUFFER as usize {
        guest.send(ports, operation::RW, &pattern(sent, 64 << 10));
        sent += 64 << 10;
        guest.settle();
        guest.send(ports, operation::CREDIT_REQUEST, &[]);
        let mut update = guest.expect(operation::CREDIT_UPDATE);
        while let Some((later, _)) = guest.receive() {
            update = later;
        }
        if BUFFER - (sent as u32 - update.fwd_cnt) < 64 << 10 {
            break;
        }
    }
    shutdown(&mut guest, ports, BOTH);
    guest.expect(operation::RST);
    // For the guest it is gone.
    guest.send(ports, operation::RW, b"more");
    guest.expect(operation::RST);
    let mut got = Vec::new();
    for _ in 0..100 {
        got.extend(read(&mut program));
        guest.settle();
    }
    assert!(got == pattern(0, sent));
    assert!(is_at_end(&mut program));
}

#[test]
fn a_program_that_dies_is_gone_for_the_guest() {
    let mut guest = Guest::new(8);
    // Nothing was unread.
    let (program, ports) = guest.connect(5);
    drop(program);
    assert_eq!(guest.expect(operation::SHUTDOWN).flags, BOTH);
    guest.send(ports, operation::RST, &[]);
    guest.expect_nothing();
    // Bytes of the guest's were, which the guest hears of when it writes, or of the end.
    let (program, ports) = guest.connect(5);
    guest.send(ports, operation::RW, b"unread");
    guest.settle();
    drop(program);
    guest.settle();
    let end = guest.receive().unwrap().0;
    assert!(matches!(
        end.operation,
        operation::SHUTDOWN | operation::RST
    ));
    // Before the guest has answered, or has been asked.
    let (program, ports) = guest.ask(5);
    drop(program);
    assert_eq!(guest.expect(operation::RST).source.port, ports.host);
    let program = guest.program("CONNECT 1\n");
    drop(program);
    while let Some((packet, _)) = guest.receive() {
        assert!(matches!(
            packet.operation,
            operation::REQUEST | operation::RST
        ));
    }
    // All are gone: nothing is watched but the listener.
    guest.send(ports, operation::RST, &[]);
    guest.settle();
    assert_eq!(guest.watch.watched.len(), 1);
}

#[test]
fn a_program_that_dies_with_bytes_unread_by_the_guest_leaves_them_behind() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    let mut packet = packet(ports, operation::CREDIT_UPDATE);
    packet.buf_alloc = 10;
    guest.send_raw(&packet.bytes(), &[], &[]);
    guest.settle();
    program.write_all(&pattern(0, 30)).unwrap();
    drop(program);
    assert_eq!(guest.receive().unwrap().1, pattern(0, 10));
    guest.expect(operation::CREDIT_REQUEST);
    guest.expect_nothing();
    packet.fwd_cnt = 10;
    packet.buf_alloc = 100;
    guest.send_raw(&packet.bytes(), &[], &[]);
    assert_eq!(guest.receive().unwrap().1, pattern(10, 20));
    assert_eq!(guest.expect(operation::SHUTDOWN).flags, BOTH);
}

#[test]
fn a_program_that_reads_no_more_is_told_to_the_guest() {
    let mut guest = Guest::new(8);
    let (mut program, ports) = guest.connect(5);
    program.shutdown(Shutdown::Read).unwrap();
    for _ in 0..20 {
        guest.send(ports, operation::RW, &[0; 60_000]);
    }
    assert_eq!(guest.expect(operation::SHUTDOWN).flags, NO_RECEIVE);
    // What nobody reads costs no credit.
    while let Some((packet, _)) = guest.receive() {
        assert_eq!(packet.operation, operation::CREDIT_UPDATE);
    }
    program.write_all(b"but it writes").unwrap();
    assert_eq!(guest.receive().unwrap().1, b"but it writes");
}

#[test]
fn a_guest_without_buffers_holds_up_programs_but_costs_nothing() {
    let mut guest = Guest::new(0);
    let mut programs = Vec::new();
    for _ in 0..100 {
        programs.push(guest.program("CONNECT 1\n"));
        guest.settle();
    }
    // It is asked about those that are left.
    programs.truncate(3);
    guest.settle();
    guest.provide(8);
    for _ in 0..3 {
        guest.expect(operation::REQUEST);
    }
    guest.expect_nothing();
}

#[test]
fn refusals_wait_for_buffers_and_the_guest_for_them() {
    let mut guest = Guest::new(0);
    let ports = Ports { host: 1, guest: 1 };
    let mut sent = 0_u32;
    let mut taken = 0;
    for _ in 0..10 {
        for _ in 0..100 {
            guest.send(ports, operation::REQUEST, &[]);
            sent += 1;
        }
        guest.settle();
        taken += std::iter::from_fn(|| guest.drivers[TX].used()).count();
        if taken < sent as usize {
            break;
        }
    }
    assert_eq!(taken, 256);
    guest.provide(8);
    for _ in 0..sent {
        guest.expect(operation::RST);
    }
    guest.expect_nothing();
}

#[test]
fn when_all_places_are_taken_the_oldest_silent_program_goes() {
    let mut guest = Guest::new(64);
    let mut silent: Vec<_> = (0..3).map(|_| guest.program("CONN")).collect();
    guest.settle();
    let mut open = Vec::new();
    for port in 3..u32::from(PLACES) {
        open.push(guest.connect(port));
    }
    assert!(!is_at_end(&mut silent[0]));
    for index in 0..3 {
        let (mut program, ports) = guest.connect(9000);
        assert!(is_at_end(&mut silent[index]));
        assert!(silent.iter_mut().skip(index + 1).all(|s| !is_at_end(s)));
        guest.send(ports, operation::RW, b"ok");
        guest.settle();
        assert_eq!(read(&mut program), b"ok");
        open.push((program, ports));
    }
    // Now one has to end before the next one gets in.
    let _waiting = guest.program("CONNECT 9001\n");
    guest.expect_nothing();
    let (_, ports) = open.pop().unwrap();
    assert_eq!(guest.expect(operation::SHUTDOWN).source.port, ports.host);
    // The program is gone, the guest has heard, and does not answer: its place is the next one's.
    guest.send(open[0].1, operation::CREDIT_UPDATE, &[]);
    assert_eq!(guest.expect(operation::RST).source.port, ports.host);
    guest.expect(operation::REQUEST);
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
