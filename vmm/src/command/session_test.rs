use std::io::Write;
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use proto::Process;

use super::*;
use crate::command::starter::Word;

fn orders(argument: &str) -> Start {
    Start {
        process: Process {
            args: vec![argument.to_owned()],
            ..Default::default()
        },
        ..Default::default()
    }
}

/// A session and its guest: a socket that init would see as the control port.
fn session(argument: &str) -> (Session, UnixStream) {
    Session::new(orders(argument), false).unwrap()
}

#[test]
fn hello_is_answered_by_the_orders_and_exited_ends_it() {
    let (mut session, mut guest) = session("true");
    assert!(!session.has_begun());
    proto::send(&mut guest, &ToHost::hello()).unwrap();
    session.readable();
    assert!(session.has_begun() && session.init_ready().is_some());
    let received: ToGuest = proto::recv(&mut guest).unwrap();
    assert_eq!(received, ToGuest::start(orders("true")));

    session.signal(15);
    let size = WindowSize { rows: 25, cols: 80 };
    session.resize(size);
    assert_eq!(
        proto::recv::<ToGuest>(&mut guest).unwrap(),
        ToGuest::Signal { number: 15 }
    );
    assert_eq!(
        proto::recv::<ToGuest>(&mut guest).unwrap(),
        ToGuest::Resize(size)
    );

    proto::send(&mut guest, &ToHost::Started { pid: 7 }).unwrap();
    proto::send(&mut guest, &ToHost::Exited { code: 3 }).unwrap();
    session.readable();
    assert_eq!(session.outcome(), Some(&Outcome::Exited(3)));
}

#[test]
fn who_waits_for_the_start_is_told() {
    let (mut session, mut guest) = session("true");
    let (fifo, starter) = std::io::pipe().unwrap();
    let [fifo, starter] = [OwnedFd::from(fifo), starter.into()].map(File::from);
    session.tell_start(Starter::new(starter));
    proto::send(&mut guest, &ToHost::Started { pid: 7 }).unwrap();
    session.readable();
    assert_eq!(Word::read(&fifo).unwrap(), Some(Word::Started));
}

#[test]
fn a_size_that_comes_early_is_the_one_to_start_with() {
    let mut orders = orders("true");
    orders.process.terminal = Some(WindowSize { rows: 24, cols: 80 });
    let (mut session, mut guest) = Session::new(orders, false).unwrap();
    let size = WindowSize {
        rows: 50,
        cols: 132,
    };
    session.resize(size);
    proto::send(&mut guest, &ToHost::hello()).unwrap();
    session.readable();
    let Ok(ToGuest::Start { start, .. }) = proto::recv(&mut guest) else {
        panic!("the first message is not Start");
    };
    assert_eq!(start.process.terminal, Some(size));
}

#[test]
fn orders_longer_than_the_socket_takes_wait_for_it() {
    let long = "x".repeat(proto::MAX_FRAME - 1000);
    let (mut session, mut guest) = session(&long);
    proto::send(&mut guest, &ToHost::hello()).unwrap();
    session.readable();
    assert!(session.has_waiting());
    let reader = std::thread::spawn(move || proto::recv::<ToGuest>(&mut guest));
    while session.has_waiting() {
        session.writable();
    }
    assert_eq!(
        reader.join().unwrap().unwrap(),
        ToGuest::start(orders(&long))
    );
}

#[test]
fn a_guest_that_takes_nothing_cannot_make_us_grow() {
    let (mut session, _guest) = session("true");
    for _ in 0..1_000_000 {
        session.signal(10);
    }
    assert!(session.waiting.len() <= MAX_WAITING);
    assert_eq!(session.outcome(), None);
}

#[test]
fn kills_for_want_of_memory_end_nothing_and_fill_no_log() {
    let (mut session, mut guest) = session("true");
    let record = tempfile::NamedTempFile::new().unwrap();
    session.record_kills(Some(record.reopen().unwrap()));
    proto::send(&mut guest, &ToHost::hello()).unwrap();
    for _ in 0..2 * MAX_KILLS {
        let name = "a\nb".to_owned();
        proto::send(&mut guest, &ToHost::OutOfMemory { name }).unwrap();
        session.readable();
    }
    assert_eq!((session.kills, session.outcome()), (2 * MAX_KILLS, None));
    assert_eq!(std::fs::read(record.path()).unwrap(), b"1");
    proto::send(&mut guest, &ToHost::Exited { code: 137 }).unwrap();
    session.readable();
    assert_eq!(session.outcome(), Some(&Outcome::Exited(137)));
}

#[test]
fn another_version_and_a_closed_port_break_it_with_a_reason() {
    let broken = |session: &Session| match session.outcome() {
        Some(Outcome::Broken(message)) => message.clone(),
        other => panic!("{other:?}"),
    };
    let (mut other, mut guest) = session("true");
    proto::send(
        &mut guest,
        &ToHost::Hello {
            version: proto::VERSION + 1,
        },
    )
    .unwrap();
    other.readable();
    assert!(broken(&other).contains("version"), "{}", broken(&other));

    let (mut closed, guest) = session("true");
    drop(guest);
    closed.readable();
    assert!(
        broken(&closed).contains("control port"),
        "{}",
        broken(&closed)
    );
}

#[test]
fn systemd_that_powers_off_has_succeeded() {
    for (systemd, code, expected) in [(true, 130, 0), (true, 7, 7), (false, 130, 130)] {
        let (mut session, mut guest) = Session::new(orders("init"), systemd).unwrap();
        proto::send(&mut guest, &ToHost::Exited { code }).unwrap();
        session.readable();
        assert_eq!(session.outcome(), Some(&Outcome::Exited(expected)));
    }
}

#[test]
fn what_the_guest_says_is_one_line_without_control_characters() {
    let (mut session, mut guest) = session("true");
    let message = format!("evil\x1b[2J\n{}", "y".repeat(5000));
    proto::send(&mut guest, &ToHost::Failed { code: 127, message }).unwrap();
    session.readable();
    let Some(Outcome::Failed { code: 127, message }) = session.outcome() else {
        panic!()
    };
    assert!(message.len() <= 1000 && !message.chars().any(char::is_control));
}

proptest! {
    #[test]
    fn no_bytes_from_the_guest_make_it_panic(bytes: Vec<u8>) {
        let (mut session, mut guest) = session("true");
        guest.write_all(&bytes).unwrap();
        session.readable();
    }
}
