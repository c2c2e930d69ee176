use std::os::unix::net::UnixStream;

use proptest::prelude::*;
use proto::exec::{AGENT_NAME, FromAgent, MAX_DATA, ToAgent};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};

use super::*;

/// A certificate with its key, PEM.
#[derive(Clone)]
struct Pair {
    certificate: String,
    key: String,
}

/// An authority, and a pair for each end.
struct Set {
    authority: String,
    server: Pair,
    client: Pair,
}

fn set() -> Set {
    set_until(2100)
}

fn set_until(year: i32) -> Set {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let pair = |usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new([AGENT_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Pair {
            certificate: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    };
    Set {
        authority: authority.pem(),
        server: pair(ExtendedKeyUsagePurpose::ServerAuth),
        client: pair(ExtendedKeyUsagePurpose::ClientAuth),
    }
}

fn identity<'a>(authority: &'a str, pair: &'a Pair) -> Identity<'a> {
    Identity {
        authority: authority.as_bytes(),
        certificate: pair.certificate.as_bytes(),
        key: pair.key.as_bytes(),
    }
}

pub(super) type Agent = Channel<UnixStream, ToAgent>;
pub(super) type Client = Channel<UnixStream, FromAgent>;

fn ends(server: &Identity<'_>, client: &Identity<'_>) -> (Agent, Client) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    let agent = Channel::accept(one, &server.server().unwrap()).unwrap();
    let client = Channel::connect(other, &client.client().unwrap()).unwrap();
    (agent, client)
}

pub(super) fn right() -> (Agent, Client) {
    let set = set();
    ends(
        &identity(&set.authority, &set.server),
        &identity(&set.authority, &set.client),
    )
}

/// Lets both ends talk until neither has more to say; who fails first, and how.
pub(super) fn talk(agent: &mut Agent, client: &mut Client) -> Result<(), (&'static str, Error)> {
    for _ in 0..20 {
        client.flush().map_err(|e| ("client", e))?;
        agent.fill(&mut [0; READ_SIZE]).map_err(|e| ("agent", e))?;
        agent.flush().map_err(|e| ("agent", e))?;
        client
            .fill(&mut [0; READ_SIZE])
            .map_err(|e| ("client", e))?;
    }
    Ok(())
}

#[test]
fn messages_go_both_ways() {
    let (mut agent, mut client) = right();
    assert!(agent.is_handshaking() && client.is_handshaking());
    talk(&mut agent, &mut client).unwrap();
    assert!(!agent.is_handshaking() && !client.is_handshaking());
    let input = ToAgent::Stdin(vec![7; MAX_DATA]);
    client.send(&input).unwrap();
    client.send(&ToAgent::StdinEnd).unwrap();
    let output = FromAgent::Stdout(b"out".to_vec());
    agent.send(&output).unwrap();
    talk(&mut agent, &mut client).unwrap();
    assert_eq!(agent.next().unwrap(), Some(input));
    assert_eq!(agent.next().unwrap(), Some(ToAgent::StdinEnd));
    assert_eq!(agent.next().unwrap(), None);
    assert_eq!(client.next().unwrap(), Some(output));
    client.close().unwrap();
    drop(client);
    agent.fill(&mut [0; READ_SIZE]).unwrap();
    assert!(matches!(
        agent.fill(&mut [0; READ_SIZE]),
        Err(Error::Closed)
    ));
}

#[test]
fn a_full_socket_is_waited_for() {
    let (mut agent, mut client) = right();
    talk(&mut agent, &mut client).unwrap();
    let mut sent = 0;
    while client.is_idle() {
        client.send(&ToAgent::Stdin(vec![1; MAX_DATA])).unwrap();
        sent += 1;
    }
    let mut received = 0;
    while received < sent {
        agent.fill(&mut [0; READ_SIZE]).unwrap();
        client.flush().unwrap();
        while agent.next().unwrap().is_some() {
            received += 1;
        }
    }
    assert!(client.is_idle() && sent > 1);
}

#[test]
fn what_is_left_behind_is_read_though_nothing_can_be_written() {
    let (mut agent, mut client) = right();
    talk(&mut agent, &mut client).unwrap();
    let last = FromAgent::Exited { code: 3 };
    agent.send(&last).unwrap();
    drop(agent);
    assert!(matches!(
        client.send(&ToAgent::StdinEnd),
        Err(Error::Closed)
    ));
    client.fill(&mut [0; READ_SIZE]).unwrap();
    assert_eq!(client.next().unwrap(), Some(last));
    assert!(matches!(
        client.fill(&mut [0; READ_SIZE]),
        Err(Error::Closed)
    ));
}

/// How a connection between these two fails.
fn failure(server: &Identity<'_>, client: &Identity<'_>) -> (&'static str, String) {
    let (mut agent, mut client) = ends(server, client);
    let (end, error) = talk(&mut agent, &mut client).unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
    assert!(agent.next().unwrap().is_none() && client.next().unwrap().is_none());
    (end, error.to_string())
}

#[test]
fn strangers_are_refused() {
    let (ours, theirs) = (set(), set());
    let right_server = identity(&ours.authority, &ours.server);
    // A client of another authority, which trusts ours.
    let (end, error) = failure(&right_server, &identity(&ours.authority, &theirs.client));
    assert_eq!(end, "agent", "{error}");
    // A server of another authority.
    let stranger = identity(&ours.authority, &theirs.server);
    let (end, error) = failure(&stranger, &identity(&ours.authority, &ours.client));
    assert_eq!(end, "client", "{error}");
}

#[test]
fn each_certificate_is_for_one_end() {
    let set = set();
    let server = identity(&set.authority, &set.server);
    let client = identity(&set.authority, &set.client);
    let (end, error) = failure(&client, &client);
    assert_eq!(end, "client", "{error}");
    let (end, error) = failure(&server, &server);
    assert_eq!(end, "agent", "{error}");
}

#[test]
fn what_has_expired_is_refused() {
    let set = set_until(2001);
    let server = identity(&set.authority, &set.server);
    let (_, error) = failure(&server, &identity(&set.authority, &set.client));
    assert!(error.contains("xpired"), "{error}");
}

#[test]
fn wrong_files_are_named() {
    let set = set();
    let error = |authority: &str, pair: &Pair| {
        let identity = identity(authority, pair);
        let server = identity.server().unwrap_err().to_string();
        assert_eq!(server, identity.client().unwrap_err().to_string());
        server
    };
    let broken = Pair {
        key: "no key".into(),
        ..set.client.clone()
    };
    assert!(error(&set.authority, &broken).starts_with("key: "));
    let foreign = Pair {
        key: set.server.key.clone(),
        ..set.client.clone()
    };
    assert!(error(&set.authority, &foreign).starts_with("certificate and key: "));
    let other_kind = Pair {
        key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .unwrap()
            .serialize_pem(),
        ..set.client.clone()
    };
    error(&set.authority, &other_kind);
    assert_eq!(error("", &set.client), "authority: no certificate in it");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let set = set();
        let (one, mut other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let config = identity(&set.authority, &set.server).server().unwrap();
        let mut agent: Agent = Channel::accept(one, &config).unwrap();
        other.write_all(&bytes).unwrap();
        drop(other);
        let mut ended = false;
        for _ in 0..10 {
            ended |= agent.fill(&mut [0; READ_SIZE]).is_err();
        }
        prop_assert!(ended && agent.is_handshaking() && agent.next().unwrap().is_none());
    }
}
