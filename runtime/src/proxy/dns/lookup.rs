//! Name servers that are containers: their addresses, which Docker's resolver knows.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use proto::dns::{self, MAX_MESSAGE};
use runtime::resolv_conf::Server;
use tracing::debug;

/// The addresses of all servers; blocks for `patience` at most for each question.
///
/// # Errors
/// Names the setting with a name that `resolver` does not know.
pub(super) fn addresses(
    servers: &[Server],
    resolver: SocketAddr,
    patience: Duration,
) -> Result<Vec<IpAddr>> {
    let address = |server: &Server| match server {
        Server::Address(address) => Ok(*address),
        Server::Container { name, setting } => match find(name, resolver, patience) {
            Some(address) => Ok(address),
            None => bail!("{setting}: no such container on this container's networks"),
        },
    };
    servers.iter().map(address).collect()
}

/// Its first IPv4 address, or else its first IPv6 address.
fn find(name: &str, resolver: SocketAddr, patience: Duration) -> Option<IpAddr> {
    (0..).zip([false, true]).find_map(|(id, ipv6)| {
        let query = dns::address_query(id, name, ipv6)?;
        match ask(&query, resolver, patience) {
            Ok(answer) => dns::addresses(&answer).next(),
            Err(error) => {
                debug!("ask {resolver} for {name}: {error}");
                None
            }
        }
    })
}

fn ask(query: &[u8], resolver: SocketAddr, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(resolver)?;
    socket.send(query)?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = socket.recv(&mut buffer)?;
        match buffer.get(..count) {
            Some(answer) if dns::answers(query, answer) => return Ok(answer.to_vec()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn container(name: &str) -> Server {
        Server::Container {
            name: name.into(),
            setting: format!("RUNQ_DNS={name}"),
        }
    }

    /// Knows the IPv4 address of `four`, and the IPv6 address of `six`.
    fn resolver() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, client)) = socket.recv_from(&mut buffer) {
                let query = &buffer[..count];
                let record: &[u8] = if query.ends_with(b"\x04four\0\0\x01\0\x01") {
                    b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x07"
                } else if query.ends_with(b"\x03six\0\0\x1c\0\x01") {
                    b"\xc0\x0c\0\x1c\0\x01\0\0\0\0\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
                } else {
                    b""
                };
                let mut answer = [query, record].concat();
                answer[2] |= 0x80;
                answer[7] = 1;
                socket.send_to(b"garbage", client).unwrap();
                socket.send_to(&answer, client).unwrap();
            }
        });
        address
    }

    #[test]
    fn containers_have_their_addresses() {
        let long = Duration::from_secs(60);
        let found = |servers: &[Server]| addresses(servers, resolver(), long);
        let servers = [
            container("four"),
            Server::Address([8, 8, 8, 8].into()),
            container("six"),
        ];
        let expected = ["10.0.0.7", "8.8.8.8", "fd00::1"];
        let found_all: Vec<_> = found(&servers).unwrap();
        assert_eq!(
            found_all,
            expected.map(|text| text.parse::<IpAddr>().unwrap())
        );
        for name in ["five", "..", &"x".repeat(64)] {
            assert_eq!(
                found(&[container(name)]).unwrap_err().to_string(),
                format!("RUNQ_DNS={name}: no such container on this container's networks")
            );
        }
    }

    #[test]
    fn a_resolver_that_is_silent_or_not_there_knows_nobody() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let short = Duration::from_millis(20);
        addresses(&[container("four")], address, short).unwrap_err();
        drop(silent);
        addresses(&[container("four")], address, short * 10_000).unwrap_err();
    }
}
