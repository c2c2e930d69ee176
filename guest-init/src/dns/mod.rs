//! In the place of Docker's resolver: answers the queries of the container's processes.
//!
//! ```text
//! the command ──▶ 127.0.0.11:53 ──▶ relay ──▶ port ──▶ Docker's resolver, on the host
//!                                └─▶ external: the servers that Docker's cannot reach
//! ```
//!
//! As Docker's resolver does, init listens at other ports if Docker's packet rules lead there from port
//! 53: the command may have that one for itself.
//!
//! One thread receives datagrams, one accepts connections, one receives the host's answers; each query
//! and each connection has a thread as long as it lasts, and there are bounds for both. All of them
//! block, none polls.

mod external;
mod relay;
mod room;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use proto::Resolver;
use proto::dns::{self, DNS_PORT, MAX_MESSAGE, MAX_QUERIES};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::console;
use crate::ports::{InputPort, OutputPort, open_both};
use crate::stdio::spawn_thread;
use external::{read_message, write_message};
use relay::Relay;
use room::Room;

/// The port of name servers (RFC 1035, 4.2).
const PORT: u16 = 53;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may say nothing (RFC 7766, 6.2.3: a few seconds), or not take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// How long an external server has: less than Docker gives it, as the client has waited already.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);

/// The sockets, and the port to the host. What comes for them waits until they are served.
pub(crate) struct Dns {
    datagrams: UdpSocket,
    connections: TcpListener,
    port: (InputPort, OutputPort),
    servers: Vec<SocketAddr>,
}

/// What all threads share.
struct Shared {
    relay: Relay,
    servers: Vec<SocketAddr>,
    server_patience: Duration,
    queries: Room,
    connections: Room,
}

impl Dns {
    /// Listens, so that the command finds a resolver from its start on; `filtered`: there are packet
    /// rules that lead to it.
    pub(crate) fn open(resolver: &Resolver, filtered: bool) -> Result<Self> {
        let [udp, tcp] = places(resolver, filtered);
        let name = |at| format!("listen at {at} in the place of Docker's resolver");
        Ok(Self {
            datagrams: bind_datagrams(udp).with_context(|| name(udp))?,
            // With SO_REUSEADDR, too.
            connections: TcpListener::bind(tcp).with_context(|| name(tcp))?,
            port: open_both(DNS_PORT)?,
            servers: with_port(resolver),
        })
    }

    /// Answers queries as long as the guest runs, on threads of its own.
    pub(crate) fn serve(self) -> Result<()> {
        let (from_host, to_host) = self.port;
        let shared = Arc::new(Shared {
            relay: Relay::new(to_host, dns::PATIENCE),
            servers: self.servers,
            server_patience: SERVER_PATIENCE,
            queries: Room::new(MAX_QUERIES),
            connections: Room::new(MAX_CONNECTIONS),
        });
        shared.start(self.datagrams, self.connections, from_host)
    }
}

impl Shared {
    fn start(
        self: Arc<Self>,
        datagrams: UdpSocket,
        connections: TcpListener,
        from_host: InputPort,
    ) -> Result<()> {
        let (one, two) = (Arc::clone(&self), Arc::clone(&self));
        spawn_thread("dns-port", move || self.relay.listen(from_host))?;
        spawn_thread("dns-udp", move || {
            let Err(error) = one.serve_datagrams(&Arc::new(datagrams));
            console::line(format_args!("DNS over UDP: {error}"));
        })?;
        spawn_thread("dns-tcp", move || {
            let Err(error) = two.serve_connections(&connections);
            console::line(format_args!("DNS over TCP: {error}"));
        })?;
        Ok(())
    }

    /// More queries than there may be are dropped: the client asks again.
    fn serve_datagrams(self: &Arc<Self>, socket: &Arc<UdpSocket>) -> io::Result<Infallible> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let (length, client) = socket.recv_from(&mut buffer)?;
            let query = buffer.get(..length).unwrap_or_default().to_vec();
            let Some(place) = self.queries.enter() else {
                continue;
            };
            let (shared, socket) = (Arc::clone(self), Arc::clone(socket));
            spawn_or_tell("dns-query", move || {
                if let Some(answer) = shared.datagram(&query) {
                    // If the client is gone, nobody misses the answer.
                    let _ = socket.send_to(&answer, client);
                }
                drop(place);
            });
        }
    }

    /// The answer to a query over UDP, as long as the client takes it.
    fn datagram(&self, query: &[u8]) -> Option<Vec<u8>> {
        let answer = self.resolve(query, false)?;
        if answer.len() > dns::udp_size(query) {
            return dns::truncated(&answer);
        }
        Some(answer)
    }

    /// More connections than there may be are closed.
    fn serve_connections(self: &Arc<Self>, listener: &TcpListener) -> io::Result<Infallible> {
        loop {
            let (connection, _) = match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                accepted => accepted?,
            };
            let Some(place) = self.connections.enter() else {
                continue;
            };
            let shared = Arc::clone(self);
            spawn_or_tell("dns-client", move || {
                // How it ends is the client's affair.
                let _ = shared.serve_connection(connection);
                drop(place);
            });
        }
    }

    /// Answers the queries of a connection, one after the other, until it ends.
    fn serve_connection(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_read_timeout(Some(IDLE))?;
        connection.set_write_timeout(Some(IDLE))?;
        loop {
            let query = read_message(&mut connection)?;
            let Some(_place) = self.queries.enter() else {
                return Ok(());
            };
            let Some(answer) = self.resolve(&query, true) else {
                return Ok(());
            };
            write_message(&mut connection, &answer)?;
        }
    }

    /// What is known of a query: Docker's answer, or that of the first external server that has one,
    /// or a failure. None if it is no query.
    fn resolve(&self, query: &[u8], stream: bool) -> Option<Vec<u8>> {
        if !dns::is_query(query) {
            return None;
        }
        let of_docker = self.relay.ask(query, stream);
        if of_docker.as_ref().is_some_and(|a| !dns::is_failure(a)) {
            return of_docker;
        }
        let mut of_servers = self
            .servers
            .iter()
            .filter_map(|server| external::ask(*server, query, stream, self.server_patience).ok());
        let answer = of_servers.find(|answer| !dns::is_failure(answer));
        answer.or(of_docker).or_else(|| dns::failure(query))
    }
}

fn spawn_or_tell(name: &str, body: impl FnOnce() + Send + 'static) {
    if let Err(error) = spawn_thread(name, body) {
        console::line(format_args!("DNS: {error:#}"));
    }
}

/// Shares its port with name servers of the command that allow it, too, and listen at all addresses.
fn bind_datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket.into())
}

/// Where to listen, over UDP and TCP.
fn places(resolver: &Resolver, filtered: bool) -> [SocketAddr; 2] {
    let ports = resolver.ports.filter(|_| filtered).unwrap_or((PORT, PORT));
    [ports.0, ports.1].map(|port| SocketAddr::new(resolver.address, port))
}

fn with_port(resolver: &Resolver) -> Vec<SocketAddr> {
    let servers = resolver.servers.iter();
    servers
        .map(|server| SocketAddr::new(*server, PORT))
        .collect()
}

#[cfg(test)]
#[path = "dns_test.rs"]
mod tests;
