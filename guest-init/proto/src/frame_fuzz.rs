//! Any stream to the agent's decoder and to its clients': messages, frames that are none, and bytes
//! that are no frame, in pieces of any size.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::tests::{capabilities, frame, rlimit, user, window};
use super::*;
use crate::exec::{Exec, ExecUser, FromAgent, ProcessInfo, ToAgent};

fn exec() -> impl Strategy<Value = Exec> {
    let texts = || vec(".*", 0..4);
    let who = prop_oneof![
        user().prop_map(ExecUser::Known),
        ".*".prop_map(ExecUser::Named)
    ];
    let rights = (
        option::of(who),
        option::of(capabilities()),
        option::of(any::<bool>()),
        option::of(vec(rlimit(), 0..3)),
        any::<bool>(),
    );
    let rest = (
        option::of(texts()),
        option::of(".*"),
        option::of(any::<u32>()),
        option::of(window()),
    );
    (texts(), texts(), rights, rest).prop_map(
        |(
            args,
            more_env,
            (user, capabilities, no_new_privileges, rlimits, unfiltered),
            (env, cwd, umask, terminal),
        )| Exec {
            args,
            env,
            more_env,
            cwd,
            user,
            capabilities,
            no_new_privileges,
            rlimits,
            umask,
            unfiltered,
            terminal,
        },
    )
}

fn to_agent() -> impl Strategy<Value = ToAgent> {
    prop_oneof![
        3 => exec().prop_map(|exec| ToAgent::Exec(Box::new(exec))),
        1 => Just(ToAgent::List),
        3 => vec(any::<u8>(), 0..300).prop_map(ToAgent::Stdin),
        1 => Just(ToAgent::StdinEnd),
        1 => any::<i32>().prop_map(ToAgent::Signal),
        1 => window().prop_map(ToAgent::Resize),
    ]
}

fn process() -> impl Strategy<Value = ProcessInfo> {
    (any::<[u32; 4]>(), ".*", vec(".*", 0..3)).prop_map(|([pid, parent, uid, gid], name, args)| {
        ProcessInfo {
            pid,
            parent,
            uid,
            gid,
            name,
            args,
        }
    })
}

fn from_agent() -> impl Strategy<Value = FromAgent> {
    let data = || vec(any::<u8>(), 0..300);
    prop_oneof![
        ".*".prop_map(FromAgent::hello),
        any::<u32>().prop_map(|pid| FromAgent::Started { pid }),
        (any::<u8>(), ".*").prop_map(|(code, message)| FromAgent::Failed { code, message }),
        data().prop_map(FromAgent::Stdout),
        data().prop_map(FromAgent::Stderr),
        any::<u32>().prop_map(FromAgent::Taken),
        any::<u8>().prop_map(|code| FromAgent::Exited { code }),
        vec(process(), 0..4).prop_map(FromAgent::Processes),
    ]
}

/// A part of a stream.
#[derive(Clone, Debug)]
enum Part<M> {
    Message(M),
    /// A message of which one byte is another, behind the right length.
    Changed(M, Index, u8),
    /// A frame of any bytes.
    Frame(Vec<u8>),
    /// Bytes that are no frame.
    Bytes(Vec<u8>),
}

impl<M: Message> Part<M> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => encode(message).unwrap(),
            Self::Changed(message, place, byte) => {
                let mut frame = encode(message).unwrap();
                let place = HEADER + place.index(frame.len() - HEADER);
                frame[place] = *byte;
                frame
            }
            Self::Frame(body) => frame(body),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// Parts each of which is a frame.
fn framed<M: std::fmt::Debug + Clone>(
    message: impl Strategy<Value = M>,
) -> impl Strategy<Value = Part<M>> {
    let kinds = (0..3_u8, vec(any::<u8>(), 0..60), any::<(Index, u8)>());
    (message, kinds).prop_map(|(message, (kind, body, (place, byte)))| match kind {
        0 => Part::Message(message),
        1 => Part::Changed(message, place, byte),
        _ => Part::Frame(body),
    })
}

fn any_part<M: std::fmt::Debug + Clone>(
    message: impl Strategy<Value = M>,
) -> impl Strategy<Value = Part<M>> {
    let length = prop_oneof![0..2000_u32, 0..2 * MAX_FRAME as u32, any::<u32>()];
    prop_oneof![
        4 => framed(message),
        1 => vec(any::<u8>(), 0..60).prop_map(Part::Bytes),
        // A length, and nothing that belongs to it.
        1 => length.prop_map(|length| Part::Bytes(length.to_le_bytes().to_vec())),
    ]
}

/// Cuts a stream into pieces of these lengths, over and over.
fn pieces<'a>(mut stream: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        let (piece, rest) = stream.split_at(stream.len().min(*lengths.next()?));
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What comes of a stream in such pieces, up to an error that is for ever; and the decoder.
fn decoded<M: Message>(stream: &[u8], lengths: &[usize]) -> (Vec<Result<M, Error>>, Decoder<M>) {
    let mut decoder = Decoder::new();
    let mut results = Vec::new();
    for piece in pieces(stream, lengths) {
        decoder.push(piece);
        while let Some(result) = decoder.next().transpose() {
            let is_last = matches!(result, Err(Error::TooLong(_)));
            results.push(result);
            if is_last {
                return (results, decoder);
            }
        }
        assert!(decoder.buffer.len() < HEADER + MAX_FRAME);
        // As vectors grow.
        assert!(decoder.buffer.capacity() <= 2 * (HEADER + MAX_FRAME + piece.len()));
    }
    (results, decoder)
}

fn check_frames<M: Message + PartialEq + std::fmt::Debug>(parts: &[Part<M>], lengths: &[usize]) {
    let stream: Vec<u8> = parts.iter().flat_map(Part::bytes).collect();
    let (results, decoder) = decoded::<M>(&stream, lengths);
    assert!(decoder.is_empty());
    assert_eq!(results.len(), parts.len());
    for (part, result) in parts.iter().zip(results) {
        match (part, result) {
            (Part::Message(message), result) => assert_eq!(&result.unwrap(), message),
            (_, Ok(message)) => assert!(encode(&message).unwrap().len() <= part.bytes().len()),
            (_, Err(error)) => {
                assert!(
                    matches!(error, Error::Malformed | Error::Version(_)),
                    "{error:?}"
                );
            }
        }
    }
}

fn check_cut<M: Message + PartialEq + std::fmt::Debug>(
    messages: &[M],
    cut: Index,
    lengths: &[usize],
) {
    let frames: Vec<_> = messages.iter().map(|m| encode(m).unwrap()).collect();
    let stream = frames.concat();
    let cut = cut.index(stream.len() + 1);
    let mut end = 0;
    let ends = frames.iter().map(|frame| {
        end += frame.len();
        end
    });
    let whole = ends.filter(|end| *end <= cut).count();
    let (results, decoder) = decoded::<M>(&stream[..cut], lengths);
    let results: Vec<M> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, messages[..whole]);
    let at_an_end = frames[..whole].concat().len() == cut;
    assert_eq!(decoder.is_empty(), at_an_end);
}

fn check_any<M: Message>(parts: &[Part<M>], lengths: &[usize]) {
    let stream: Vec<u8> = parts.iter().flat_map(Part::bytes).collect();
    let (results, mut decoder) = decoded::<M>(&stream, lengths);
    for result in results {
        match result {
            Ok(message) => assert!(encode(&message).is_ok()),
            Err(Error::Malformed | Error::Version(_)) => {}
            Err(Error::TooLong(length)) => {
                assert!(length > MAX_FRAME);
                assert!(matches!(decoder.next(), Err(Error::TooLong(again)) if again == length));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..9_usize, 1..3000_usize], 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_frame_that_is_none_of_a_client_costs_only_itself(
        parts in vec(framed(to_agent()), 0..8), lengths in lengths()
    ) {
        check_frames(&parts, &lengths);
    }

    #[test]
    fn a_frame_that_is_none_of_an_agent_costs_only_itself(
        parts in vec(framed(from_agent()), 0..8), lengths in lengths()
    ) {
        check_frames(&parts, &lengths);
    }

    #[test]
    fn of_a_cut_stream_to_the_agent_come_the_whole_messages(
        messages in vec(to_agent(), 0..6), cut: Index, lengths in lengths()
    ) {
        check_cut(&messages, cut, &lengths);
    }

    #[test]
    fn of_a_cut_stream_from_the_agent_come_the_whole_messages(
        messages in vec(from_agent(), 0..6), cut: Index, lengths in lengths()
    ) {
        check_cut(&messages, cut, &lengths);
    }

    #[test]
    fn any_stream_of_a_client_is_survived(
        parts in vec(any_part(to_agent()), 0..12), lengths in lengths()
    ) {
        check_any(&parts, &lengths);
    }

    #[test]
    fn any_stream_of_an_agent_is_survived(
        parts in vec(any_part(from_agent()), 0..12), lengths in lengths()
    ) {
        check_any(&parts, &lengths);
    }
}

#[test]
fn what_claims_to_be_huge_is_refused_before_it_is_allocated() {
    // Arguments of a command, and input; a list of processes, and output: 2^32-1 of each.
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for variant in [0, 2] {
        let frame = frame(&[&[variant], &huge[..]].concat());
        let result = recv::<ToAgent>(&mut frame.as_slice());
        assert!(matches!(result, Err(Error::Malformed)), "{variant}");
    }
    for variant in [7, 3] {
        let frame = frame(&[&[variant], &huge[..]].concat());
        let result = recv::<FromAgent>(&mut frame.as_slice());
        assert!(matches!(result, Err(Error::Malformed)), "{variant}");
    }
}
