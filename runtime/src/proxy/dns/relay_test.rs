use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;

use proptest::prelude::*;
use proto::dns::{DnsQuery, address_query};
use proto::{recv, send};

use super::*;

/// Long enough for anything that happens at all, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);
/// For what does not happen.
const SHORT: Duration = Duration::from_millis(20);

/// A resolver over UDP and TCP at one address, which the tests play.
struct Resolver {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Resolver {
    fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        match UdpSocket::bind(tcp.local_addr().unwrap()) {
            Ok(udp) => {
                udp.set_read_timeout(Some(LONG)).unwrap();
                Self { udp, tcp }
            }
            // Somebody else has that one.
            Err(_) => Self::new(),
        }
    }

    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 512];
        let (count, client) = self.udp.recv_from(&mut buffer).unwrap();
        (buffer[..count].to_vec(), client)
    }

    fn accept(&self) -> (TcpStream, Vec<u8>) {
        let (mut connection, _) = self.tcp.accept().unwrap();
        connection.set_read_timeout(Some(LONG)).unwrap();
        let mut length = [0; 2];
        connection.read_exact(&mut length).unwrap();
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        connection.read_exact(&mut query).unwrap();
        (connection, query)
    }

    /// The guest's side of a relay that is as confined as it can be in a test.
    fn relay(&self, patience: Duration) -> (UnixStream, JoinHandle<Error>) {
        let (host, guest) = UnixStream::pair().unwrap();
        guest.set_read_timeout(Some(LONG)).unwrap();
        let mut relay = Relay::new(host, self.tcp.local_addr().unwrap()).unwrap();
        relay.patience = patience;
        let thread = thread::spawn(move || {
            restrict_calls().unwrap();
            let Err(error) = relay.run();
            error
        });
        (guest, thread)
    }
}

fn query(id: u32, stream: bool) -> DnsQuery {
    DnsQuery {
        id,
        stream,
        message: address_query(id as u16, "web.example", false).unwrap(),
    }
}

fn answer(query: &[u8], filling: usize) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer.resize(answer.len() + filling, 7);
    answer
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length, message].concat()
}

fn none(id: u32) -> DnsAnswer {
    let message = Vec::new();
    DnsAnswer { id, message }
}

#[test]
fn a_query_is_asked_over_what_the_guest_says() {
    let resolver = Resolver::new();
    let (mut guest, thread) = resolver.relay(LONG);
    send(&mut guest, &query(1, false)).unwrap();
    let (asked, client) = resolver.receive();
    assert_eq!(asked, query(1, false).message);
    // Somebody else's answers do not count.
    resolver.udp.send_to(b"garbage", client).unwrap();
    resolver.udp.send_to(b"", client).unwrap();
    let other = answer(&query(2, false).message, 0);
    resolver.udp.send_to(&other, client).unwrap();
    let message = answer(&asked, 1000);
    resolver.udp.send_to(&message, client).unwrap();
    assert_eq!(
        recv::<DnsAnswer>(&mut guest).unwrap(),
        DnsAnswer { id: 1, message }
    );

    send(&mut guest, &query(2, true)).unwrap();
    let (mut connection, asked) = resolver.accept();
    assert_eq!(asked, query(2, true).message);
    let message = answer(&asked, 60_000);
    for part in framed(&message)
        .chunks(1)
        .take(20)
        .chain(framed(&message)[20..].chunks(9999))
    {
        connection.write_all(part).unwrap();
    }
    assert_eq!(
        recv::<DnsAnswer>(&mut guest).unwrap(),
        DnsAnswer { id: 2, message }
    );
    guest.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(thread.join().unwrap(), Error::Closed));
}

#[test]
fn many_are_asked_at_once_and_no_more() {
    let resolver = Resolver::new();
    let (mut guest, _thread) = resolver.relay(LONG);
    let ids = 0..MAX_QUERIES as u32;
    for id in ids.clone().chain([1000]) {
        send(&mut guest, &query(id, false)).unwrap();
    }
    assert_eq!(recv::<DnsAnswer>(&mut guest).unwrap(), none(1000));
    let asked: Vec<_> = ids.clone().map(|_| resolver.receive()).collect();
    for (asked, client) in asked.into_iter().rev() {
        resolver.udp.send_to(&answer(&asked, 0), client).unwrap();
    }
    let mut answers: Vec<DnsAnswer> = ids.clone().map(|_| recv(&mut guest).unwrap()).collect();
    answers.sort_by_key(|answer| answer.id);
    for (id, got) in ids.zip(answers) {
        let message = answer(&query(id, false).message, 0);
        assert_eq!(got, DnsAnswer { id, message });
    }
    // There is room again.
    send(&mut guest, &query(7, false)).unwrap();
    resolver.receive();
}

#[test]
fn what_has_no_answer_is_told() {
    let resolver = Resolver::new();
    let (mut guest, _thread) = resolver.relay(SHORT);
    for stream in [false, true] {
        send(&mut guest, &query(1, stream)).unwrap();
        assert_eq!(recv::<DnsAnswer>(&mut guest).unwrap(), none(1));
    }
    let (mut guest, _thread) = resolver.relay(LONG);
    let of_no_query = DnsQuery {
        message: b"garbage".to_vec(),
        ..query(2, false)
    };
    send(&mut guest, &of_no_query).unwrap();
    assert_eq!(recv::<DnsAnswer>(&mut guest).unwrap(), none(2));
    // A connection that ends, and one with an answer to something else.
    resolver.accept();
    send(&mut guest, &query(3, true)).unwrap();
    let (mut connection, _) = resolver.accept();
    connection.write_all(&[0, 9, 1]).unwrap();
    drop(connection);
    assert_eq!(recv::<DnsAnswer>(&mut guest).unwrap(), none(3));
    send(&mut guest, &query(4, true)).unwrap();
    let (mut connection, _) = resolver.accept();
    let other = answer(&query(5, true).message, 0);
    connection.write_all(&framed(&other)).unwrap();
    assert_eq!(recv::<DnsAnswer>(&mut guest).unwrap(), none(4));
    // Nobody listens.
    drop(resolver);
    for stream in [false, true] {
        send(&mut guest, &query(6, stream)).unwrap();
        assert_eq!(recv::<DnsAnswer>(&mut guest).unwrap(), none(6));
    }
}

/// Giving up capabilities takes some.
#[test]
fn it_is_confined_when_it_has_started() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let resolver = Resolver::new();
    let (host, mut guest) = UnixStream::pair().unwrap();
    let relay = Relay::new(host, resolver.tcp.local_addr().unwrap()).unwrap();
    relay.start().unwrap();
    let of_threads = std::fs::read_dir("/proc/self/task").unwrap();
    let status = of_threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok())
        .find(|status| status.starts_with("Name:\tdns\n"))
        .unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000\n")),
            "{status}"
        );
    }
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    send(&mut guest, &query(1, false)).unwrap();
    let (asked, client) = resolver.receive();
    let message = answer(&asked, 0);
    resolver.udp.send_to(&message, client).unwrap();
    assert_eq!(
        recv::<DnsAnswer>(&mut guest).unwrap(),
        DnsAnswer { id: 1, message }
    );
}

/// Megabytes of queries, of which no answer is read: they are all taken.
#[test]
fn a_guest_that_floods_blocks_nobody() {
    let resolver = Resolver::new();
    let (mut guest, thread) = resolver.relay(LONG);
    guest.set_write_timeout(Some(LONG)).unwrap();
    let mut of_no_query = query(1, false);
    of_no_query.message = vec![0xff; 1000];
    let flood = encode(&of_no_query).unwrap().repeat(100);
    for _ in 0..100 {
        guest.write_all(&flood).unwrap();
    }
    guest.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(thread.join().unwrap(), Error::Closed));
}

#[test]
fn the_backlog_is_bounded() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let mut relay = Relay::new(host, "127.0.0.1:9".parse().unwrap()).unwrap();
    for id in 0..100 {
        relay.answer(id, vec![1; MAX_MESSAGE]).unwrap();
        assert!(relay.backlog.len() <= MAX_FRAME);
    }
    assert!(relay.backlog.len() > MAX_FRAME / 2);
}

#[test]
fn a_frame_without_end_ends_the_relay_and_a_bad_one_is_skipped() {
    let resolver = Resolver::new();
    let (mut guest, thread) = resolver.relay(LONG);
    guest.write_all(&[1, 0, 0, 0, 0xff]).unwrap();
    send(&mut guest, &query(1, false)).unwrap();
    assert_eq!(resolver.receive().0, query(1, false).message);
    guest.write_all(&[0xff; 4]).unwrap();
    assert!(matches!(thread.join().unwrap(), Error::TooLong(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_of_the_guest_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
    ) {
        let resolver = Resolver::new();
        let (mut guest, thread) = resolver.relay(LONG);
        for message in messages {
            send(&mut guest, &DnsQuery { id: 1, stream: false, message }).unwrap();
        }
        // The relay may have ended.
        let _ = guest.write_all(&bytes);
        let _ = guest.shutdown(Shutdown::Write);
        thread.join().unwrap();
    }
}
