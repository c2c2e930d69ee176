//! Whatever an end says that has the right certificate, and whatever becomes of it on the way.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::mem::replace;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proto::exec::{FromAgent, MAX_DATA, ToAgent};
use proto::{MAX_FRAME, encode};

use super::tests::{Agent, Client, right, talk};
use super::*;

/// Two ends that have shown their certificates.
fn greeted() -> (Agent, Client) {
    let (mut agent, mut client) = right();
    talk(&mut agent, &mut client).unwrap();
    (agent, client)
}

/// Takes all that comes to an end; why no more does.
fn take_all<M: Message>(end: &mut Channel<UnixStream, M>, into: &mut Vec<M>) -> Result<(), Error> {
    end.fill(&mut [0; READ_SIZE])?;
    // All that it holds is the decoder's.
    assert!(!matches!(end.tls.reader().read(&mut [0]), Ok(1)));
    while let Some(message) = end.next()? {
        into.push(message);
    }
    Ok(())
}

/// Has one end say these bytes instead of messages, and leave: the other gets what a decoder makes of
/// them, up to the first error, which is the end.
fn check_said<M: Message, N: Message + Debug + PartialEq>(
    mut from: Channel<UnixStream, M>,
    mut to: Channel<UnixStream, N>,
    bytes: &[u8],
) {
    let mut decoder = Decoder::<N>::new();
    decoder.push(bytes);
    let mut expected = Vec::new();
    let malformed = loop {
        match decoder.next() {
            Ok(Some(message)) => expected.push(message),
            result => break result.err(),
        }
    };

    from.tls.writer().write_all(bytes).unwrap();
    from.close().unwrap();
    let mut said = Vec::new();
    let error = loop {
        from.flush().unwrap();
        if from.is_idle() {
            from.socket.shutdown(Shutdown::Write).unwrap();
        }
        if let Err(error) = take_all(&mut to, &mut said) {
            break error;
        }
    };
    assert_eq!(said, expected);
    match (malformed, error) {
        (None, Error::Closed) => {}
        (Some(expected), Error::Message(error)) => {
            assert_eq!(error.to_string(), expected.to_string());
        }
        (expected, error) => panic!("{error:?}, not {expected:?}"),
    }
}

/// Parts of what an end says: messages, parts of them, and what is none.
fn parts<M: Message + Debug>(
    message: impl Strategy<Value = M>,
) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let cut = prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let message = (message, cut).prop_map(|(message, cut)| {
        let mut frame = encode(&message).unwrap();
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        frame
    });
    let length = 0..u32::try_from(2 * MAX_FRAME).unwrap();
    let part = prop_oneof![
        6 => message,
        1 => vec(any::<u8>(), 0..300),
        1 => length.prop_map(|length| length.to_le_bytes().to_vec()),
        1 => (0..MAX_FRAME).prop_map(|length| vec![0; length]),
    ];
    vec(part, 0..8)
}

fn input() -> impl Strategy<Value = ToAgent> {
    (0..=MAX_DATA).prop_map(|length| ToAgent::Stdin(vec![7; length]))
}

fn output() -> impl Strategy<Value = FromAgent> {
    (0..=MAX_DATA).prop_map(|length| FromAgent::Stdout(vec![7; length]))
}

/// What becomes of a stream somewhere.
#[derive(Clone, Debug)]
enum Harm {
    Change(u8),
    Insert(Vec<u8>),
    Cut,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        2 => (1..=u8::MAX).prop_map(Harm::Change),
        1 => vec(any::<u8>(), 1..300).prop_map(Harm::Insert),
        1 => Just(Harm::Cut),
    ]
}

/// Whether a change at this place of a stream of records is none: that of the lower byte of a record's version, which is there
/// for others than TLS (RFC 8446, 5.1).
fn is_ignored(records: &[u8], place: usize) -> bool {
    let mut at = 0;
    while let Some(&[_, _, _, high, low]) = records.get(at..at + 5) {
        if at + 5 > place {
            return place == at + 2;
        }
        at += 5 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}

/// Does harm to what one end sends to the other, which takes no message that is not whole, nor any
/// behind it.
fn check_harmed<M: Message, N: Message + Debug + PartialEq>(
    mut from: Channel<UnixStream, M>,
    mut to: Channel<UnixStream, N>,
    messages: &[N],
    (place, harm): (Index, Harm),
) {
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let mut wire = replace(&mut from.socket, near);
    for message in messages {
        from.send(message).unwrap();
    }
    let mut sent = Vec::new();
    let reader = std::thread::spawn(move || {
        far.read_to_end(&mut sent).unwrap();
        sent
    });
    from.socket.set_nonblocking(false).unwrap();
    from.flush().unwrap();
    drop(from);
    let mut sent = reader.join().unwrap();
    let place = place.index(sent.len());
    match harm {
        Harm::Change(bits) => {
            let place = place + usize::from(is_ignored(&sent, place));
            sent[place] ^= bits;
        }
        Harm::Insert(bytes) => drop(sent.splice(place..place, bytes)),
        Harm::Cut => sent.truncate(place),
    }

    let writer = std::thread::spawn(move || {
        wire.set_nonblocking(false).unwrap();
        // Who is told of it may have left.
        let _ = wire.write_all(&sent);
    });
    let mut taken = Vec::new();
    to.socket.set_nonblocking(false).unwrap();
    let error = loop {
        if let Err(error) = take_all(&mut to, &mut taken) {
            break error;
        }
    };
    drop(to);
    writer.join().unwrap();
    assert!(matches!(error, Error::Tls(_) | Error::Closed), "{error:?}");
    assert!(taken.len() < messages.len());
    assert_eq!(taken, messages[..taken.len()]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_a_right_client_says_is_messages_up_to_the_first_that_is_none(parts in parts(input())) {
        let (agent, client) = greeted();
        check_said(client, agent, &parts.concat());
    }

    #[test]
    fn what_a_right_agent_says_is_messages_up_to_the_first_that_is_none(parts in parts(output())) {
        let (agent, client) = greeted();
        check_said(agent, client, &parts.concat());
    }

    #[test]
    fn what_is_harmed_on_the_way_to_the_agent_is_the_end(
        messages in vec(input(), 1..5), place: Index, harm in harm()
    ) {
        let (agent, client) = greeted();
        check_harmed(client, agent, &messages, (place, harm));
    }

    #[test]
    fn what_is_harmed_on_the_way_from_the_agent_is_the_end(
        messages in vec(output(), 1..5), place: Index, harm in harm()
    ) {
        let (agent, client) = greeted();
        check_harmed(agent, client, &messages, (place, harm));
    }
}

/// Has an end read what is there, and then the end, which has to come in time.
fn check_ends<M: Message + Debug + PartialEq + Send + 'static>(
    mut end: Channel<UnixStream, M>,
    expected: &[M],
) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut taken = Vec::new();
        let error = loop {
            if let Err(error) = take_all(&mut end, &mut taken) {
                break error;
            }
        };
        tell.send((taken, error)).unwrap();
    });
    let (taken, error) = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(taken, expected);
    assert!(matches!(error, Error::Closed), "{error:?}");
}

#[test]
fn what_follows_the_last_word_is_ignored() {
    // More than TLS takes at once.
    let more = vec![0; READ_SIZE / 2];
    let (agent, mut client) = greeted();
    client.send(&ToAgent::List).unwrap();
    client.close().unwrap();
    client.socket.write_all(&more).unwrap();
    drop(client);
    check_ends(agent, &[ToAgent::List]);
    let (mut agent, client) = greeted();
    let last = FromAgent::Exited { code: 3 };
    agent.send(&last).unwrap();
    agent.close().unwrap();
    agent.socket.write_all(&more).unwrap();
    drop(agent);
    check_ends(client, &[last]);
}
