//! Where clients come in: a vsock port, for the host alone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, VsockAddr, bind, getpeername,
    listen, socket,
};
use proto::exec::AGENT_PORT;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that listens, and does not block.
pub(crate) struct Listener(OwnedFd);

/// What there is to accept.
pub(super) enum Accepted {
    /// Somebody from the host.
    Client(OwnedFd),
    /// Somebody else, who is gone by now.
    Stranger,
    /// Nobody.
    Nobody,
}

impl Listener {
    /// Listens at the agent's port.
    ///
    /// # Errors
    /// When the kernel has no vsock.
    pub(crate) fn open() -> Result<Self> {
        Self::at(AGENT_PORT)
    }

    fn at(port: u32) -> Result<Self> {
        let socket = socket(
            AddressFamily::Vsock,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .context("vsock (the kernel needs CONFIG_VIRTIO_VSOCKETS)")?;
        bind(
            socket.as_raw_fd(),
            &VsockAddr::new(libc::VMADDR_CID_ANY, port),
        )
        .with_context(|| format!("take the vsock port {port}"))?;
        listen(&socket, Backlog::new(BACKLOG)?).context("listen to vsock")?;
        Ok(Self(socket))
    }

    /// The next connection, if there is one.
    ///
    /// # Errors
    /// When there is none because something is missing. More may come later.
    pub(super) fn accept(&self) -> Result<Accepted> {
        let client = match accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(client) => client,
            Err(Errno::AGAIN) => return Ok(Accepted::Nobody),
            Err(Errno::CONNABORTED | Errno::INTR) => return Ok(Accepted::Stranger),
            Err(error) => return Err(error).context("accept a client"),
        };
        Ok(match getpeername::<SockaddrStorage>(client.as_raw_fd()) {
            Ok(peer) if may_come(peer.as_vsock_addr()) => Accepted::Client(client),
            _ => Accepted::Stranger,
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Of those with a vsock address, only the host: the others are the container's own processes.
fn may_come(peer: Option<&VsockAddr>) -> bool {
    peer.is_none_or(|peer| peer.cid() == libc::VMADDR_CID_HOST)
}

#[cfg(test)]
impl From<OwnedFd> for Listener {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_waited_for() {
        let listener = match Listener::at(libc::VMADDR_PORT_ANY) {
            Ok(listener) => listener,
            Err(error) => return eprintln!("skipped: no vsock: {error:#}"),
        };
        assert!(matches!(listener.accept(), Ok(Accepted::Nobody)));
    }

    #[test]
    fn only_the_host_may_come() {
        for (cid, may) in [(1, false), (2, true), (3, false), (u32::MAX, false)] {
            assert_eq!(may_come(Some(&VsockAddr::new(cid, 1024))), may, "{cid}");
        }
    }
}
