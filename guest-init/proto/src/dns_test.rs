use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A header with these flags and one question, and what follows it.
fn message(flags: u8, code: u8, name: &[u8], rest: &[u8]) -> Vec<u8> {
    let header = [0x12, 0x34, flags, code, 0, 1, 0, 1, 0, 0, 0, 1];
    [&header, name, &[0, 1, 0, 1], rest].concat()
}

const NAME: &[u8] = b"\x03web\x07Example\0";
/// A record: a pointer to the question's name, A, IN, 600 s, 4 bytes.
const ADDRESS: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\x02\x58\0\x04\x0a\0\0\x07";
/// An OPT record that accepts 1232 bytes.
const EDNS: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";

fn query() -> Vec<u8> {
    message(1, 0, NAME, b"")
}

#[test]
fn an_answer_has_the_id_and_the_question_of_its_query() {
    let query = query();
    assert!(is_query(&query));
    let answer = message(0x81, 0x80, NAME, ADDRESS);
    assert!(answers(&query, &answer) && !is_query(&answer));
    assert!(answers(
        &query,
        &message(0x81, 0, b"\x03WEB\x07example\0", b"")
    ));
    let mut other_id = answer.clone();
    other_id[1] ^= 1;
    assert!(!answers(&query, &other_id));
    assert!(!answers(&query, &query));
    assert!(!answers(
        &query,
        &message(0x81, 0, b"\x03wub\x07Example\0", b"")
    ));
    // HTTPS, 65, and 97 are the same letter.
    let typed = |kind: u8, flags| {
        let mut message = message(flags, 0, NAME, b"");
        let end = message.len();
        message[end - 3] = kind;
        message
    };
    assert!(answers(&typed(65, 1), &typed(65, 0x81)));
    assert!(!answers(&typed(65, 1), &typed(97, 0x81)));
}

#[test]
fn what_is_no_question_is_refused() {
    let query = query();
    for length in 0..query.len() {
        assert_eq!(question(&query[..length]), None, "{length}");
    }
    let long = [vec![b'\x3f'; 64].as_slice(); 5].concat();
    for name in [
        b"\xc0\x0c".as_slice(),
        b"\x01a\xc0\x0c",
        b"\xc0\x0e\xc0\x0c",
        b"\x40a\0",
        b"\x80a\0",
        b"\x3fa",
        &long,
    ] {
        assert_eq!(question(&message(1, 0, name, b"")), None, "{name:?}");
    }
    let mut two = query.clone();
    two[5] = 2;
    assert_eq!(question(&two), None);
    let mut longest = query.clone();
    longest.resize(MAX_MESSAGE, 0);
    assert!(question(&longest).is_some());
    longest.push(0);
    assert_eq!(question(&longest), None);
}

#[test]
fn a_failure_answers_its_query() {
    let query = message(1, 0, NAME, EDNS);
    let answer = failure(&query).unwrap();
    assert!(answers(&query, &answer) && is_failure(&answer));
    assert_eq!(
        answer,
        [
            &[0x12, 0x34, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0],
            NAME,
            &[0, 1, 0, 1]
        ]
        .concat()
    );
    for (code, expected) in [(0, false), (2, true), (3, false), (5, true)] {
        assert_eq!(is_failure(&message(0x81, 0x80 | code, NAME, b"")), expected);
    }
}

#[test]
fn a_truncated_answer_is_still_one() {
    let answer = message(0x81, 0x83, NAME, ADDRESS);
    let short = truncated(&answer).unwrap();
    assert!(answers(&query(), &short) && short.len() < answer.len());
    assert_eq!(
        (short[2], short[3], &short[6..12]),
        (0x83, 0x83, &[0; 6][..])
    );
}

#[test]
fn the_size_over_udp_is_what_the_client_says() {
    assert_eq!(udp_size(&query()), 512);
    assert_eq!(udp_size(&message(1, 0, NAME, EDNS)), 1232);
    assert_eq!(
        udp_size(&message(1, 0, NAME, &[ADDRESS, EDNS].concat())),
        1232
    );
    assert_eq!(
        udp_size(&message(1, 0, NAME, b"\0\0\x29\0\x10\0\0\0\0\0\0")),
        512
    );
}

#[test]
fn names_are_asked_for_and_addresses_found() {
    let query = address_query(0x1234, "web.Example", false).unwrap();
    assert_eq!(
        query,
        [
            &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            NAME,
            &[0, 1, 0, 1]
        ]
        .concat()
    );
    let query = address_query(1, "a_b-c", true).unwrap();
    assert!(query.ends_with(b"\x05a_b-c\0\0\x1c\0\x01"));
    for name in ["", ".", "a..b", "a.", &"x".repeat(64), &"x.".repeat(200)] {
        assert_eq!(address_query(1, name, false), None, "{name}");
    }
    let six = b"\xc0\x0c\0\x1c\0\x01\0\0\x02\x58\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    let odd = b"\xc0\x0c\0\x01\0\x01\0\0\x02\x58\0\x01\x0a";
    let answer = message(0x81, 0x80, NAME, &[odd, ADDRESS, six].concat());
    let found: Vec<_> = addresses(&answer)
        .map(|address| address.to_string())
        .collect();
    assert_eq!(found, ["10.0.0.7", "fd00::1"]);
}

/// Bytes that are a message in parts.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 0..60), vec(0..70u8, 0..300))
        .prop_map(|(name, rest)| message(1, 0, &name, &rest))
}

proptest! {
    #[test]
    fn any_bytes_can_be_looked_at(
        one in prop_oneof![nearly(), vec(any::<u8>(), 0..300)],
        other in prop_oneof![nearly(), vec(any::<u8>(), 0..300)],
    ) {
        let (size, _) = (udp_size(&one), addresses(&one).count());
        prop_assert!((512..=MAX_MESSAGE).contains(&size));
        prop_assert!(!answers(&one, &other) || one[..2] == other[..2]);
        is_failure(&one);
        if let Some(section) = question(&one) {
            prop_assert!(section.len() <= MAX_NAME + 64 + 4);
            prop_assert_eq!(truncated(&one).unwrap().len(), HEADER + section.len());
        }
        if is_query(&one) {
            prop_assert!(answers(&one, &failure(&one).unwrap()));
        } else {
            prop_assert!(failure(&one).is_none_or(|_| one[2] & RESPONSE != 0));
        }
    }

    #[test]
    fn messages_arrive_as_they_were_sent(id: u32, stream: bool, message: Vec<u8>) {
        let query = DnsQuery { id, stream, message };
        let mut decoder = crate::Decoder::new();
        decoder.push(&crate::encode(&query).unwrap());
        prop_assert_eq!(decoder.next().unwrap(), Some(query));
    }
}
