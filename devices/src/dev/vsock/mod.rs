//! Socket device (virtio 1.3, section 5.10): stream connections between programs of the host and of
//! the guest.
//!
//! Packets are moved by the kernel's vhost-vsock (`kernel.rs`), where guests have addresses in the
//! host's own AF_VSOCK; or in user space (`user.rs`), where programs of the host come by a Unix
//! socket. Both are the same device to the guest.

#[cfg(test)]
mod bounds_test;
#[cfg(test)]
mod close_test;
mod connection;
mod credit;
mod exchange;
#[cfg(test)]
mod guest_test;
#[cfg(test)]
mod hostile_test;
mod kernel;
mod listener;
mod packet;
mod program;
mod room;
mod table;
mod user;
#[cfg(test)]
mod user_test;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use crate::config_space::ConfigSpace;
use crate::device::{DeviceKind, Traits, VirtioDevice};
use crate::vhost::{self, Vhost};
use kernel::KernelVsock;
use user::UserVsock;

pub use kernel::set_guest_cid;

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "vsock",
    id: VIRTIO_ID_VSOCK as u16,
    system_calls: &[
        // Of the device in user space: a client that comes, and who it is.
        libc::SYS_accept4,
        libc::SYS_getsockopt,
        // Its first line, without what follows.
        libc::SYS_recvfrom,
        // What the standard library writes by.
        libc::SYS_sendto,
        // The end of one direction, and of both.
        libc::SYS_shutdown,
        libc::SYS_poll,
    ],
    requests: &[&[libc::FIONBIO, kernel::SET_RUNNING], &vhost::REQUESTS],
};

/// Section 5.10.2: the queues.
const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;
/// Linux refills the first before half of it is used up; the last gets a few buffers, which stay.
const QUEUE_SIZES: [u16; 3] = [256, 256, 8];

/// Section 5.10.4: addresses below mean something else, as does the last one of 32 bits.
pub const FIRST_CID: u32 = 3;

/// What the guest's address is, and how its connections get to the host.
#[derive(Debug)]
pub struct Config {
    /// The guest's address, from [`FIRST_CID`] on, but not 2^32-1.
    pub cid: u32,
    /// Who moves the packets.
    pub backend: Backend,
}

/// Who moves the packets.
#[derive(Debug)]
pub enum Backend {
    /// The host's kernel: an opened /dev/vhost-vsock to which [`set_guest_cid`] gave the address.
    Kernel(File),
    /// This process. Programs of the host that connect to the socket, as root or as the user that
    /// this process has, write "CONNECT PORT\n" and, once the guest has accepted, read "OK PORT\n"
    /// with the connection's port on the host. The guest itself connects to nothing.
    User(UnixListener),
}

/// Makes the device.
///
/// # Errors
/// When the configuration makes no sense, or the host's kernel lacks what is needed.
pub(super) fn new(config: Config) -> io::Result<Box<dyn VirtioDevice>> {
    build(config).map_err(|error| io::Error::new(error.kind(), format!("vsock: {error}")))
}

fn build(config: Config) -> io::Result<Box<dyn VirtioDevice>> {
    let cid = config.cid;
    if !(FIRST_CID..u32::MAX).contains(&cid) {
        let error = format!("{cid} is no address of a guest");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    Ok(match config.backend {
        Backend::Kernel(file) => Box::new(Vhost::new(KernelVsock::new(cid, file)?)),
        Backend::User(listener) => Box::new(UserVsock::new(cid, listener)?),
    })
}

/// Section 5.10.4: the address, of which the upper half is zero.
fn config_space(cid: u32) -> io::Result<Arc<ConfigSpace>> {
    let bytes = u64::from(cid).to_le_bytes().to_vec();
    Ok(Arc::new(ConfigSpace::new(bytes)?))
}

/// Section 5.10.3: no feature means stream sockets, which is what both backends have.
fn traits(config: &Arc<ConfigSpace>, own_loop: bool) -> Traits {
    Traits {
        kind: &KIND,
        features: 0,
        queue_sizes: QUEUE_SIZES.to_vec(),
        config: Arc::clone(config),
        own_loop,
    }
}
