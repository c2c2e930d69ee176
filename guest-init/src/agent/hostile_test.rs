//! Clients that break the rules, or never say anything.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use channel::{Error, READ_SIZE};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::WindowSize;
use proto::exec::{FromAgent, MAX_DATA, STDIN_WINDOW, ToAgent};

use super::testing::{Guest, command, pairs, shell, sleeper, until, with_guest};

/// A right client is served as ever, and nothing of the others is left.
fn is_well(guest: &Guest, descriptors: usize) {
    assert_eq!(guest.shell("echo well").stdout, "well\n");
    until("all are reaped", || guest.children().is_empty());
    until("nothing is left open", || {
        guest.descriptors() == descriptors
    });
    assert!(guest.memory() < 8192, "{}", guest.memory());
}

#[test]
fn those_who_say_nothing_lock_out_nobody() {
    let name = "agent::hostile::those_who_say_nothing_lock_out_nobody";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let mut silent: Vec<UnixStream> = Vec::new();
        for number in 0..500 {
            let mut socket = guest.connect();
            if number % 3 == 0 {
                // The beginning of a handshake.
                let _ = socket.write_all(&[22, 3, 1, 0, 200]);
            }
            silent.push(socket);
        }
        assert_eq!(guest.shell("echo served").stdout, "served\n");
        assert!(guest.descriptors() <= idle + 64, "{}", guest.descriptors());
        // The oldest were dropped, the latest not yet.
        assert_eq!(silent[0].read(&mut [0]).unwrap_or_default(), 0);
        drop(silent);
        is_well(guest, idle);
    });
}

/// Without a pause, and each for a moment only.
#[test]
fn a_flood_of_those_who_say_nothing_locks_out_nobody() {
    let name = "agent::hostile::a_flood_of_those_who_say_nothing_locks_out_nobody";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let over = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..4)
            .map(|_| {
                let (over, path) = (Arc::clone(&over), guest.socket.clone());
                std::thread::spawn(move || {
                    let mut silent = VecDeque::new();
                    while !over.load(Ordering::Relaxed) {
                        silent.push_back(UnixStream::connect(&path).unwrap());
                        silent.drain(..silent.len().saturating_sub(100));
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            // Who was greeted is dropped for nobody.
            let ended = guest.persistent_client().started(shell("echo served"));
            assert_eq!(ended.end().stdout, "served\n");
        }
        over.store(true, Ordering::Relaxed);
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        is_well(guest, idle);
    });
}

#[test]
fn other_certificates_are_refused() {
    let name = "agent::hostile::other_certificates_are_refused";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let (_, _, stranger) = pairs();
        let mut client = guest.stranger(&stranger);
        // To a client the handshake is over before the agent has seen its certificate.
        let _ = client.0.send(&ToAgent::List);
        let error = loop {
            match client.0.fill(&mut [0; READ_SIZE]) {
                Ok(()) => assert_eq!(client.0.next().unwrap(), None),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Tls(_) | Error::Closed), "{error:?}");
        is_well(guest, idle);
    });
}

#[test]
fn nothing_wakes_up_an_agent_without_work() {
    let name = "agent::hostile::nothing_wakes_up_an_agent_without_work";
    with_guest(name, sleeper(), |guest| {
        let mut running = guest.started(shell("echo ready; cat"));
        running.expect("ready");
        let path = format!("/proc/{}/syscall", guest.agent);
        let mut last = String::new();
        // Number and arguments of the call that it waits in, hexadecimal: the fourth is the timeout.
        until("it waits for ever", || {
            last = std::fs::read_to_string(&path).unwrap();
            let mut words = last.split(' ');
            let call = words.next().and_then(|word| word.parse().ok());
            let timeout = words.nth(3).unwrap_or_default();
            call == Some(libc::SYS_epoll_wait) && timeout.ends_with("ffffffff")
        });
        running.send(&ToAgent::StdinEnd);
        assert_eq!(running.end().code, 0);
    });
}

#[test]
fn who_does_not_order_is_dropped_in_time() {
    let name = "agent::hostile::who_does_not_order_is_dropped_in_time";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let mut silent = guest.connect();
        let mut greeted = guest.client();
        let mut running = guest.started(shell("echo ready; cat"));
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
        assert_eq!(greeted.next(), None);
        running.expect("ready");
        running.send(&ToAgent::StdinEnd);
        assert_eq!(running.end().code, 0);
        is_well(guest, idle);
    });
}

#[test]
fn there_are_not_too_many_commands() {
    let name = "agent::hostile::there_are_not_too_many_commands";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let running: Vec<_> = (0..128).map(|_| guest.started(command(&["cat"]))).collect();
        let (code, message) = guest.failure(shell("true"));
        assert_eq!(code, 1);
        assert!(message.starts_with("128 commands"), "{message}");
        drop(running);
        until("all are gone", || guest.children().is_empty());
        is_well(guest, idle);
    });
}

#[test]
fn more_input_than_the_window_is_the_end() {
    let name = "agent::hostile::more_input_than_the_window_is_the_end";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let mut client = guest.started(command(&["sleep", "1000"]));
        // The pipe takes 64 KiB, and that is not waited for.
        for _ in 0..STDIN_WINDOW / MAX_DATA + 3 {
            let _ = client.0.send(&ToAgent::Stdin(vec![0; MAX_DATA]));
        }
        while let Some(message) = client.0.next().unwrap() {
            assert!(matches!(message, FromAgent::Taken(_)), "{message:?}");
        }
        until("its command is gone", || guest.children().is_empty());
        is_well(guest, idle);
    });
}

/// Any message, more of those that keep a connection open.
fn message() -> impl Strategy<Value = ToAgent> {
    let commands = prop_oneof![
        Just(command(&["cat"])),
        Just(shell("echo out; echo err >&2; exit 7")),
        Just(shell("cat >/dev/null & yes")),
        Just(command(&["no-such-command"])),
        Just(proto::exec::Exec {
            terminal: Some(WindowSize { rows: 1, cols: 1 }),
            ..command(&["cat"])
        }),
    ];
    prop_oneof![
        2 => commands.prop_map(|exec| ToAgent::Exec(Box::new(exec))),
        1 => Just(ToAgent::List),
        1 => "[.][a-z./]{0,9}".prop_map(|name| ToAgent::Limit(vec![(name, "1".into())])),
        4 => (0..MAX_DATA + 2).prop_map(|size| ToAgent::Stdin(vec![b'\n'; size])),
        1 => Just(ToAgent::StdinEnd),
        2 => any::<i8>().prop_map(|number| ToAgent::Signal(number.into())),
        2 => any::<(u16, u16)>().prop_map(|(rows, cols)| ToAgent::Resize(WindowSize { rows, cols })),
    ]
}

#[test]
fn any_messages_are_survived() {
    let name = "agent::hostile::any_messages_are_survived";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let first = proptest::option::weighted(0.8, message());
        let messages = (first, proptest::collection::vec(message(), 0..12));
        let mut runner = TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(60)
        });
        let survives = |(first, rest): (Option<ToAgent>, Vec<ToAgent>)| {
            let mut client = guest.client();
            for message in first.iter().chain(&rest) {
                // It may have been dropped, and need not read.
                if client.0.send(message).is_err() {
                    break;
                }
            }
            drop(client);
            is_well(guest, idle);
            Ok(())
        };
        runner.run(&messages, survives).unwrap();
    });
}

#[test]
fn garbage_at_each_state_is_the_end() {
    let name = "agent::hostile::garbage_at_each_state_is_the_end";
    with_guest(name, sleeper(), |guest| {
        let idle = guest.idle_descriptors();
        let garbage = proptest::collection::vec(any::<u8>(), 1..3000);
        let mut runner = TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(30)
        });
        let ends = |(state, mut bytes): (u8, Vec<u8>)| {
            // A record of TLS with content that is not encrypted as it should be.
            let mut record = vec![23, 3, 3];
            record.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
            record.append(&mut bytes);
            let mut socket = match state {
                0 => guest.connect(),
                1 => guest.client().0.socket().try_clone().unwrap(),
                _ => {
                    let client = guest.started(command(&["cat"]));
                    client.0.socket().try_clone().unwrap()
                }
            };
            socket.write_all(&record).unwrap();
            // The agent ends it: it reads no more, after an alert.
            let ended = socket.read_to_end(&mut Vec::new());
            prop_assert!(ended.is_ok() || state == 0, "{:?}", ended);
            is_well(guest, idle);
            Ok(())
        };
        runner.run(&(0..3u8, garbage), ends).unwrap();
    });
}
