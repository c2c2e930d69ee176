//! Where programs of the host come, and the line with which each begins: "CONNECT PORT\n", as with
//! Firecracker.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt::PeerCredentials};
use tracing::warn;

use crate::log_limit::LogLimit;

/// No line is longer.
const MAX_LINE: usize = 32;

/// A Unix socket that accepts root's programs, and those of the user that this process has.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    user: u32,
    limit: LogLimit,
}

/// Who has come.
#[derive(Debug)]
pub(super) enum Accepted {
    Program(UnixStream),
    /// One that was sent away.
    Stranger,
    Nobody,
}

/// The first line, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Greeting(Vec<u8>);

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing yet.
    Part,
    /// Which port of the guest the program wants.
    Port(u32),
    /// Nothing that makes sense, or the program is gone.
    Nonsense,
}

impl Listener {
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub(super) fn new(socket: UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            user: nix::unistd::geteuid().as_raw(),
            limit: LogLimit::default(),
        })
    }

    /// # Errors
    /// When there are no more descriptors, or the like.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        let stream = match self.socket.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(Accepted::Nobody),
                    io::ErrorKind::ConnectionAborted => Ok(Accepted::Stranger),
                    _ => Err(error),
                };
            }
        };
        stream.set_nonblocking(true)?;
        let user = getsockopt(&stream, PeerCredentials)?.uid();
        if may_connect(user, self.user) {
            return Ok(Accepted::Program(stream));
        }
        if self.limit.allows() {
            warn!("vsock: a program of user {user} wanted to connect to the guest: refused");
        }
        Ok(Accepted::Stranger)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn may_connect(user: u32, ours: u32) -> bool {
    user == 0 || user == ours
}

impl Greeting {
    /// Reads what has come of the line, and nothing of what comes after it.
    pub(super) fn hear(&mut self, stream: &UnixStream) -> Heard {
        let fd = stream.as_raw_fd();
        let mut space = [0; MAX_LINE];
        let space = space.get_mut(self.0.len()..).unwrap_or_default();
        let come = match recv(fd, space, MsgFlags::MSG_PEEK) {
            Ok(come) => space.get(..come).unwrap_or_default(),
            Err(Errno::EAGAIN | Errno::EINTR) => return Heard::Part,
            Err(_) => return Heard::Nonsense,
        };
        let end = come.iter().position(|&byte| byte == b'\n');
        let length = end.map_or(come.len(), |end| end + 1);
        let line = space.get_mut(..length).unwrap_or_default();
        if line.is_empty() || recv(fd, line, MsgFlags::empty()) != Ok(length) {
            return Heard::Nonsense;
        }
        self.0.extend_from_slice(line);
        match end {
            Some(_) => port(&self.0).map_or(Heard::Nonsense, Heard::Port),
            None if self.0.len() < MAX_LINE => Heard::Part,
            None => Heard::Nonsense,
        }
    }
}

/// The port that a whole line names. The last one means any (`VMADDR_PORT_ANY` of
/// linux/vm_sockets.h).
fn port(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?.strip_suffix(b"\n")?;
    let digits = str::from_utf8(digits).ok()?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|&port| port != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use proptest::prelude::*;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn a_line_may_come_in_parts_and_what_follows_stays() {
        let (mut ours, mut theirs) = pair();
        let mut greeting = Greeting::default();
        for part in ["", "C", "ONNECT ", "4294967", "294"] {
            theirs.write_all(part.as_bytes()).unwrap();
            assert_eq!(greeting.hear(&ours), Heard::Part, "{part}");
        }
        theirs.write_all(b"\nCONNECT 2\n").unwrap();
        assert_eq!(greeting.hear(&ours), Heard::Port(u32::MAX - 1));
        let mut rest = [0; 20];
        let count = ours.read(&mut rest).unwrap();
        assert_eq!(&rest[..count], b"CONNECT 2\n");
    }

    #[test]
    fn other_lines_are_nonsense() {
        for line in [
            "\n",
            "connect 1\n",
            "CONNECT\n",
            "CONNECT 1 \n",
            "CONNECT +1\n",
            "CONNECT -1\n",
            "CONNECT \n",
            "CONNECT 4294967295\n",
            "CONNECT 4294967296\n",
            "CONNECT 000000000000000000000001\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\n",
        ] {
            let (ours, mut theirs) = pair();
            theirs.write_all(line.as_bytes()).unwrap();
            assert_eq!(Greeting::default().hear(&ours), Heard::Nonsense, "{line}");
        }
        let (ours, theirs) = pair();
        drop(theirs);
        assert_eq!(Greeting::default().hear(&ours), Heard::Nonsense);
    }

    #[test]
    fn only_root_and_our_own_user_may_connect() {
        assert!(may_connect(0, 0) && may_connect(0, 7) && may_connect(7, 7));
        assert!(!may_connect(7, 0) && !may_connect(8, 7));
    }

    proptest! {
        /// However they are cut: no more is read than a line, and no more than it may have.
        #[test]
        fn any_bytes_are_heard_or_refused(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 1..64),
            cuts in prop::collection::vec(1..20_usize, 64),
        ) {
            let (mut ours, mut theirs) = pair();
            let mut greeting = Greeting::default();
            let (mut rest, mut heard) = (&bytes[..], Heard::Part);
            for cut in cuts {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                if part.is_empty() || heard != Heard::Part {
                    break;
                }
                theirs.write_all(part).unwrap();
                heard = greeting.hear(&ours);
                rest = after;
            }
            theirs.write_all(rest).unwrap();
            drop(theirs);
            let mut unread = Vec::new();
            ours.read_to_end(&mut unread).unwrap();
            let read = &bytes[..bytes.len() - unread.len()];
            prop_assert!(read.len() <= MAX_LINE);
            let lines = read.iter().filter(|&&byte| byte == b'\n').count();
            prop_assert!(lines == 0 || lines == 1 && read.ends_with(b"\n"));
            prop_assert_eq!(heard == Heard::Part, lines == 0 && read.len() < MAX_LINE);
        }
    }
}
