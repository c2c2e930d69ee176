//! What the kernel tells of its own accord.

use std::io;

use libc::{RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::socket::{Socket, retry};

/// Addresses come with a route each.
const GROUPS: [u32; 3] = [RTNLGRP_LINK, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE];

/// Tells that interfaces or routes of one network namespace have changed, but not what:
/// whoever looks then sees them as they are.
#[derive(Debug)]
pub struct Events {
    socket: netlink_sys::Socket,
}

impl Events {
    /// Of the calling thread's network namespace, from now on.
    ///
    /// # Errors
    /// socket(2)'s and setsockopt(2)'s.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::connected(NETLINK_ROUTE)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket })
    }

    /// Blocks until something has changed since the last call.
    ///
    /// # Errors
    /// recv(2)'s.
    pub fn wait(&mut self) -> io::Result<()> {
        self.receive(0)?;
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            }
        }
    }

    /// Takes a message, if it is not lost already.
    fn receive(&mut self, flags: libc::c_int) -> io::Result<()> {
        // Too short on purpose: the rest of a message is dropped.
        let mut buffer = [0];
        match retry(|| self.socket.recv(&mut &mut buffer[..], flags)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            result => result.map(drop),
        }
    }
}
