//! Bounds of the device in user space: credit both ways, refusals, places.

use std::io::Write;

use super::credit::BUFFER;
use super::guest_test::*;
use super::packet::{HEADER, operation};
use super::table::PLACES;
use super::*;

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
