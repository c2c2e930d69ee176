//! How connections of the device in user space end: one direction, both, or a program that dies.

use std::io::Write;
use std::net::Shutdown;

use super::credit::BUFFER;
use super::guest_test::*;
use super::packet::{NO_RECEIVE, NO_SEND, operation};
use super::*;

const BOTH: u32 = NO_RECEIVE | NO_SEND;

fn shutdown(guest: &mut Guest, ports: Ports, flags: u32) {
    let mut packet = packet(ports, operation::SHUTDOWN);
    packet.flags = flags;
    guest.send_raw(&packet.bytes(), &[], &[]);
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
