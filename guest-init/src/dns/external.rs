//! Queries to servers in the network, over UDP and TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use proto::dns::{self, MAX_MESSAGE};

/// The server's answer, within `patience`.
///
/// # Errors
/// Why there is none.
pub(super) fn ask(
    server: SocketAddr,
    query: &[u8],
    stream: bool,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    if !stream {
        return over_udp(server, query, deadline);
    }
    let connection = TcpStream::connect_timeout(&server, patience)?;
    connection.set_write_timeout(Some(patience))?;
    write_message(&mut &connection, query)?;
    let answer = read_message(&mut Until {
        connection,
        deadline,
    })?;
    if dns::answers(query, &answer) {
        Ok(answer)
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

/// A new socket has a random port, by which the answer is known as well (RFC 5452, 4.5).
fn over_udp(server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(query)?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let length = socket.recv(&mut buffer)?;
        match buffer.get(..length) {
            Some(answer) if dns::answers(query, answer) => return Ok(answer.to_vec()),
            // Somebody else's, perhaps somebody's who guesses.
            _ => {}
        }
    }
}

/// A connection that is read up to a moment, however slowly the bytes come.
struct Until {
    connection: TcpStream,
    deadline: Instant,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.connection
            .set_read_timeout(Some(left(self.deadline)?))?;
        self.connection.read(buffer)
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Reads a message with its length before it (RFC 1035, 4.2.2).
pub(super) fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    from.read_exact(&mut message)?;
    Ok(message)
}

/// Writes a message with its length before it, at once (RFC 7766, 8).
pub(super) fn write_message(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
}
