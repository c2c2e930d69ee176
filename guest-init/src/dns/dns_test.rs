use std::os::unix::net::UnixStream;
use std::thread;

use proto::dns::{DnsAnswer, DnsQuery, address_query, addresses, answers, failure, is_failure};

use super::*;

/// Long enough for anything that happens at all, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);
/// For what does not happen.
const SHORT: Duration = Duration::from_millis(20);

/// A resolver at a port of this machine.
struct Resolver {
    udp: SocketAddr,
    tcp: SocketAddr,
    /// The other side of the port.
    host: UnixStream,
}

impl Resolver {
    fn start(servers: &[SocketAddr], docker: Duration, server: Duration) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let datagrams = bind_datagrams(any).unwrap();
        let connections = TcpListener::bind(any).unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        host.set_read_timeout(Some(LONG)).unwrap();
        let (from_host, to_host) = OutputPort::fake(guest).unwrap();
        let (udp, tcp) = (datagrams.local_addr(), connections.local_addr());
        Arc::new(Shared {
            relay: Relay::new(to_host, docker),
            servers: servers.to_vec(),
            server_patience: server,
            queries: Room::new(MAX_QUERIES),
            connections: Room::new(MAX_CONNECTIONS),
        })
        .start(datagrams, connections, from_host)
        .unwrap();
        Self {
            udp: udp.unwrap(),
            tcp: tcp.unwrap(),
            host,
        }
    }

    /// Lets the host answer each query with these messages.
    fn answer(&self, mut answers: impl FnMut(&DnsQuery) -> Vec<Vec<u8>> + Send + 'static) {
        let mut host = self.host.try_clone().unwrap();
        thread::spawn(move || {
            while let Ok(query) = proto::recv::<DnsQuery>(&mut host) {
                for message in answers(&query) {
                    let id = query.id;
                    proto::send(&mut host, &DnsAnswer { id, message }).unwrap();
                }
            }
        });
    }

    fn ask_udp(&self, query: &[u8]) -> Vec<u8> {
        let client = client();
        client.send_to(query, self.udp).unwrap();
        receive(&client)
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.tcp).unwrap();
        connection.set_read_timeout(Some(LONG)).unwrap();
        connection
    }

    fn ask_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        write_message(&mut connection, query).unwrap();
        read_message(&mut connection).unwrap()
    }
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let length = client.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

/// An external server over UDP and TCP, which answers each query with these messages.
fn server(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Taken by somebody else's test, the port cannot be had; then there is another.
    let Ok(socket) = UdpSocket::bind(address) else {
        return server(answers);
    };
    let of_datagrams = answers.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; MAX_MESSAGE];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            for answer in of_datagrams(&buffer[..length]) {
                socket.send_to(&answer, client).unwrap();
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let query = read_message(&mut connection).unwrap();
            for answer in answers(&query) {
                // The first may have been enough.
                let _ = write_message(&mut connection, &answer);
            }
        }
    });
    address
}

fn query(id: u16) -> Vec<u8> {
    address_query(id, "web.example", false).unwrap()
}

/// An answer with one address, and filled up with as many bytes that belong to nothing.
fn answer(query: &[u8], last: u8, filling: usize) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[7] = 1;
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x02\x58\0\x04\x0a\0\0");
    answer.push(last);
    answer.resize(answer.len() + filling, 0);
    answer
}

fn last_byte(answer: &[u8]) -> Option<u8> {
    match addresses(answer).next()? {
        std::net::IpAddr::V4(address) => Some(address.octets()[3]),
        std::net::IpAddr::V6(_) => None,
    }
}

fn refused(query: &[u8]) -> Vec<u8> {
    let mut answer = failure(query).unwrap();
    answer[3] = 5;
    answer
}

#[test]
fn dockers_answers_come_over_what_was_asked_over() {
    let resolver = Resolver::start(&[], LONG, LONG);
    resolver.answer(|query| vec![answer(&query.message, u8::from(query.stream), 0)]);
    for id in 0..3 {
        assert_eq!(resolver.ask_udp(&query(id)), answer(&query(id), 0, 0));
        assert_eq!(resolver.ask_tcp(&query(id)), answer(&query(id), 1, 0));
    }
    let mut connection = resolver.connect();
    for id in 0..3 {
        write_message(&mut connection, &query(id)).unwrap();
        assert_eq!(
            read_message(&mut connection).unwrap(),
            answer(&query(id), 1, 0)
        );
    }
}

#[test]
fn what_docker_cannot_answer_the_servers_are_asked_in_order() {
    let servers = [
        server(|query| vec![refused(query)]),
        server(|query| vec![answer(query, 2, 0)]),
        server(|query| vec![answer(query, 3, 0)]),
    ];
    for of_docker in [
        failure,
        |query: &[u8]| Some(refused(query)),
        |_: &[u8]| Some(Vec::new()),
    ] {
        let resolver = Resolver::start(&servers, LONG, LONG);
        resolver.answer(move |query| vec![of_docker(&query.message).unwrap()]);
        assert_eq!(last_byte(&resolver.ask_udp(&query(1))), Some(2));
        assert_eq!(last_byte(&resolver.ask_tcp(&query(1))), Some(2));
    }
}

#[test]
fn a_name_that_docker_knows_not_to_exist_is_asked_of_nobody_else() {
    let resolver = Resolver::start(&[server(|query| vec![answer(query, 1, 0)])], LONG, LONG);
    resolver.answer(|query| {
        let mut answer = failure(&query.message).unwrap();
        answer[3] = 3;
        vec![answer]
    });
    assert_eq!(resolver.ask_udp(&query(1))[3], 3);
}

#[test]
fn if_nobody_answers_it_is_a_failure() {
    let silent = server(|_| Vec::new());
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let resolver = Resolver::start(&[silent, closed, silent], SHORT, SHORT);
    for answer in [resolver.ask_udp(&query(7)), resolver.ask_tcp(&query(7))] {
        assert!(answers(&query(7), &answer) && is_failure(&answer));
    }
    // Docker's own failure is passed on.
    let resolver = Resolver::start(&[closed], LONG, LONG);
    resolver.answer(|query| vec![refused(&query.message)]);
    assert_eq!(resolver.ask_udp(&query(7)), refused(&query(7)));
}

#[test]
fn a_host_that_is_gone_is_not_waited_for() {
    let servers = [server(|query| vec![answer(query, 1, 0)])];
    let resolver = Resolver::start(&servers, LONG * 60, LONG);
    resolver.host.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(last_byte(&resolver.ask_udp(&query(1))), Some(1));
    assert_eq!(last_byte(&resolver.ask_tcp(&query(1))), Some(1));
}

#[test]
fn what_is_no_answer_to_the_query_is_passed_over() {
    let servers = [
        // Over TCP nothing but the answer is expected.
        server(|query| vec![answer(&self::query(9), 1, 0), answer(query, 2, 0)]),
        server(|query| vec![answer(query, 2, 0)]),
    ];
    let resolver = Resolver::start(&servers, LONG, LONG);
    resolver.answer(|_| vec![answer(&query(8), 3, 0), b"garbage".to_vec()]);
    assert_eq!(last_byte(&resolver.ask_udp(&query(1))), Some(2));
    assert_eq!(last_byte(&resolver.ask_tcp(&query(1))), Some(2));
    // No query: it has no answer, but the next one has.
    let client = client();
    for garbage in [&b""[..], b"garbage", &answer(&query(1), 1, 0)] {
        client.send_to(garbage, resolver.udp).unwrap();
    }
    client.send_to(&query(2), resolver.udp).unwrap();
    assert!(answers(&query(2), &receive(&client)));
    let mut connection = resolver.connect();
    write_message(&mut connection, b"garbage").unwrap();
    assert!(read_message(&mut connection).is_err());
}

#[test]
fn a_long_answer_is_truncated_for_a_client_that_does_not_take_it() {
    let resolver = Resolver::start(&[], LONG, LONG);
    resolver.answer(|query| vec![answer(&query.message, 1, 1000)]);
    let short = resolver.ask_udp(&query(1));
    assert!(answers(&query(1), &short) && short[2] & 2 != 0 && short.len() == query(1).len());
    let mut with_size = query(1);
    with_size[11] = 1;
    with_size.extend(b"\0\0\x29\x08\0\0\0\0\0\0\0");
    assert_eq!(resolver.ask_udp(&with_size).len(), with_size.len() + 1016);
    assert_eq!(resolver.ask_tcp(&query(1)).len(), query(1).len() + 1016);
}

#[test]
fn many_are_answered_at_once_and_no_more() {
    let mut resolver = Resolver::start(&[], LONG, LONG);
    let client = client();
    let ids = 0..u16::try_from(MAX_QUERIES).unwrap();
    for id in ids.clone() {
        client.send_to(&query(id), resolver.udp).unwrap();
    }
    let receive_query = |host: &mut UnixStream| proto::recv::<DnsQuery>(host).unwrap();
    let queries: Vec<_> = ids
        .clone()
        .map(|_| receive_query(&mut resolver.host))
        .collect();
    // All places are taken.
    let mut one_more = resolver.connect();
    write_message(&mut one_more, &query(1000)).unwrap();
    assert!(read_message(&mut one_more).is_err());
    for DnsQuery { id, message, .. } in queries.into_iter().rev() {
        let message = answer(&message, message[1], 0);
        proto::send(&mut resolver.host, &DnsAnswer { id, message }).unwrap();
    }
    let mut answered: Vec<_> = ids.clone().map(|_| receive(&client)).collect();
    answered.sort();
    let expected: Vec<_> = ids.map(|id| answer(&query(id), id as u8, 0)).collect();
    assert_eq!(answered, expected);
}

#[test]
fn connections_are_bounded() {
    let resolver = Resolver::start(&[], LONG, LONG);
    resolver.answer(|query| vec![answer(&query.message, 1, 0)]);
    let ask = |mut connection: &TcpStream| {
        write_message(&mut connection, &query(1))?;
        read_message(&mut connection)
    };
    let connections: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let connection = resolver.connect();
            ask(&connection).unwrap();
            connection
        })
        .collect();
    assert!(ask(&resolver.connect()).is_err());
    ask(&connections[0]).unwrap();
}

#[test]
fn a_name_server_of_the_command_can_have_the_same_port() {
    let ours = bind_datagrams("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = ours.local_addr().unwrap().port();
    bind_datagrams(SocketAddr::new([0, 0, 0, 0].into(), port)).unwrap();
}

#[test]
fn packet_rules_decide_where_to_listen() {
    let resolver = |ports| proto::Resolver {
        address: [127, 0, 0, 11].into(),
        servers: Vec::new(),
        ports,
    };
    let chosen = |ports, filtered| places(&resolver(ports), filtered).map(|at| at.port());
    assert_eq!(chosen(Some((40, 41)), true), [40, 41]);
    assert_eq!(chosen(Some((40, 41)), false), [53, 53]);
    assert_eq!(chosen(None, true), [53, 53]);
}
