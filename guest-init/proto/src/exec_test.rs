use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Decoder, Error, encode};

#[test]
fn addresses_are_digits_of_the_id() {
    // Those behind are hashes.
    let of = |id: &str| {
        let mut all: Vec<_> = addresses(id).collect();
        all.truncate(all.len() - 8);
        all
    };
    assert_eq!(of("0000abcd12345678"), [0xabcd, 0x1234_5678]);
    // The hypervisor, the guest itself, the host, and anybody.
    assert_eq!(of("00000000000000010000000200000003ffffffff"), [3]);
    for id in ["ffffffff", "my-container", "+1234567", "1234567", ""] {
        assert_eq!(of(id), [0_u32; 0], "{id}");
    }
    assert_eq!(of(&"9".repeat(64)).len(), 8);
}

#[test]
fn any_id_has_addresses_of_its_own() {
    let of = |id| addresses(id).collect::<Vec<_>>();
    let (one, other) = (of("my-container"), of("my-containes"));
    assert!(one.len() == 8 && one.iter().all(|address| !other.contains(address)));
    // FNV-1a of "a".
    assert_eq!(hash(b"a".iter().copied()), 0xe40c_292c);
}

#[test]
fn another_version_is_told() {
    let mut decoder = Decoder::<FromAgent>::new();
    let hello = FromAgent::Hello {
        version: EXEC_VERSION + 1,
        container: "x".into(),
    };
    decoder.push(&encode(&hello).unwrap());
    assert!(matches!(decoder.next(), Err(Error::Version(version)) if version == EXEC_VERSION + 1));
}

#[test]
fn keys_are_not_shown() {
    let agent = Agent {
        container: "c".into(),
        authority: "a".into(),
        certificate: "b".into(),
        key: "secret".into(),
    };
    assert_eq!(format!("{agent:?}"), "Agent { container: \"c\", .. }");
}

proptest! {
    #[test]
    fn data_arrives_as_it_was_sent(bytes: Vec<u8>, signal: i32) {
        let limit = ToAgent::Limit(vec![("cpu.max".into(), signal.to_string())]);
        for message in [ToAgent::Stdin(bytes.clone()), ToAgent::Signal(signal), ToAgent::StdinEnd, limit] {
            let mut decoder = Decoder::new();
            decoder.push(&encode(&message).unwrap());
            prop_assert_eq!(decoder.next().unwrap(), Some(message));
        }
        let mut decoder = Decoder::new();
        decoder.push(&encode(&FromAgent::Stderr(bytes.clone())).unwrap());
        prop_assert_eq!(decoder.next().unwrap(), Some(FromAgent::Stderr(bytes)));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(body in vec(any::<u8>(), 0..400)) {
        let frame = [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat();
        let mut to = Decoder::<ToAgent>::new();
        to.push(&frame);
        let mut from = Decoder::<FromAgent>::new();
        from.push(&frame);
        if let Ok(Some(message)) = to.next() {
            prop_assert!(encode(&message).is_ok());
        }
        if let Ok(Some(message)) = from.next() {
            prop_assert!(encode(&message).is_ok());
        }
    }

    #[test]
    fn addresses_are_never_reserved(id: String) {
        for address in addresses(&id) {
            prop_assert!(address > 2 && address < u32::MAX);
        }
    }
}
