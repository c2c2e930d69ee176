//! Sockets to the ports of a guest.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, connect, getsockopt, socket, sockopt,
};
use proto::exec::{AGENT_PORT, USER_SOCKET};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a connection may take: a guest that is there answers at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer of the monitor.
const MAX_LINE: usize = 32;

/// A way to the agent of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The guest with this address, by the host kernel's vsock.
    Vsock(u32),
    /// The monitor, by its socket in the network namespace of this process.
    Monitor(i32),
}

impl Way {
    /// Connects; the socket does not block.
    ///
    /// # Errors
    /// See [`is_absent`]. `TimedOut` and `ConnectionReset` when nobody listens in the guest yet.
    pub(super) fn connect(&self) -> io::Result<File> {
        let socket = match self {
            Self::Vsock(address) => vsock(*address)?,
            Self::Monitor(process) => monitor(*process)?.into(),
        };
        Ok(socket.into())
    }
}

/// Whether an error of [`Way::connect`] says that there is no such way, for now at least.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ENODEV
                | Errno::EAFNOSUPPORT
                | Errno::ECONNREFUSED
                | Errno::EPERM
                | Errno::EACCES
                | Errno::ENOENT
        )
    )
}

fn vsock(address: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &VsockAddr::new(address, AGENT_PORT)) {
        Err(Errno::EINPROGRESS) => {}
        result => return Ok(result.map(|()| socket)?),
    }
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
    if poll(&mut polled, Some(&patience))? == 0 {
        return Err(ErrorKind::TimedOut.into());
    }
    match getsockopt(&socket.as_fd(), sockopt::SocketError)? {
        0 => Ok(socket),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A thread enters the namespace: the process does not.
fn monitor(process: i32) -> io::Result<UnixStream> {
    let thread = std::thread::Builder::new().spawn(move || {
        let namespace = File::open(PathBuf::from(format!("/proc/{process}/ns/net")))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(USER_SOCKET)?)
    })?;
    let socket = thread
        .join()
        .map_err(|_| io::Error::other("a thread panicked"))??;
    ask(socket, AGENT_PORT)
}

/// Asks the monitor for a port of the guest.
fn ask(mut socket: UnixStream, port: u32) -> io::Result<UnixStream> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    // What follows the line is the agent's.
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        if line.len() == MAX_LINE || socket.read(&mut byte)? == 0 {
            return Err(ErrorKind::ConnectionReset.into());
        }
        line.extend(byte);
    }
    // The port that follows is the host's.
    if !line.starts_with(b"OK ") {
        return Err(ErrorKind::ConnectionReset.into());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it if the monitor says this, and then what follows.
    fn answer(text: &[u8]) -> io::Result<Vec<u8>> {
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        monitor.write_all(text).unwrap();
        monitor.shutdown(std::net::Shutdown::Write).unwrap();
        let mut socket = ask(ours, 7)?;
        let mut line = [0; 10];
        monitor.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"CONNECT 7\n");
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest)?;
        Ok(rest)
    }

    #[test]
    fn the_monitor_is_asked_for_the_port() {
        assert_eq!(answer(b"OK 7\nTLS").unwrap(), b"TLS");
        assert_eq!(answer(b"OK 1073741825\n").unwrap(), b"");
    }

    #[test]
    fn any_other_answer_is_none() {
        for text in [&b""[..], b"OK 7", b"OK\n", b"NO\n", &[b'x'; 100]] {
            let error = answer(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_is_gone_has_no_monitor() {
        // No process has the greatest number (PID_MAX_LIMIT is 2^22).
        let error = Way::Monitor(i32::MAX).connect().unwrap_err();
        assert!(is_absent(&error), "{error}");
    }
}
