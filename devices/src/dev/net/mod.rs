//! Network device (virtio 1.3, section 5.1) over a tap or macvtap device of the host.
//!
//! Packets are moved by the kernel's vhost-net (`kernel.rs`), or in user space (`user.rs`); both
//! are the same device to the guest (`interface.rs`), and have its commands on the event loop.

mod control;
#[cfg(test)]
mod control_test;
mod drops;
mod features;
#[cfg(test)]
mod guest_test;
#[cfg(test)]
mod hostile_test;
mod interface;
mod kernel;
#[cfg(test)]
mod net_test;
mod pieces;
mod receive;
mod tap;
#[cfg(test)]
mod tap_test;
mod transmit;
mod user;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;

use crate::device::{DeviceKind, VirtioDevice};
use crate::vhost::{self, Vhost};
use interface::Interface;
use kernel::KernelNet;
use user::UserNet;

#[cfg(any(test, feature = "testing"))]
pub use tap::Requests;
pub use tap::{OPEN_REQUESTS, Tap};

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "net",
    id: VIRTIO_ID_NET as u16,
    system_calls: &[],
    requests: &[
        &[tap::SET_OFFLOAD, tap::SET_QUEUE, kernel::NET_SET_BACKEND],
        &vhost::REQUESTS,
    ],
};

/// Section 5.1.6: the header in front of each packet, `struct virtio_net_hdr_v1`.
const HEADER: usize = 12;
/// The longest packet: 64 KiB of IP, Ethernet's header with two VLAN tags, and ours.
const MAX_PACKET: usize = HEADER + 14 + 2 * 4 + 0xffff;
/// Section 5.1.4.1: the least that may be in the configuration.
const MIN_MTU: u16 = 68;
/// Each has two of the queues that a PCI function has room for (255, with the control queue).
const MAX_PAIRS: usize = 127;

/// What the interface is, and how its packets get to the host's network.
#[derive(Debug)]
pub struct Config {
    /// For messages: "eth0".
    pub name: String,
    /// Its address, of one station.
    pub mac: [u8; 6],
    /// The longest packet that the driver is to send, bytes, without the Ethernet header; at least 68.
    pub mtu: u16,
    /// A queue of the host's device for each queue pair, at least one.
    pub queues: Vec<Tap>,
    /// An opened /dev/vhost-net for each queue pair, so that the kernel moves the packets; or none
    /// at all.
    pub vhost: Vec<File>,
}

impl Config {
    /// An interface whose descriptors another process has opened: the queues of a device, and then
    /// perhaps as many of /dev/vhost-net.
    pub fn adopt(name: String, mac: [u8; 6], mtu: u16, mut descriptors: Vec<OwnedFd>) -> Self {
        let half = descriptors.len() / 2;
        let has_vhost = descriptors.len().is_multiple_of(2)
            && descriptors.get(half).is_some_and(kernel::is_vhost);
        let vhost = if has_vhost {
            descriptors.split_off(half)
        } else {
            Vec::new()
        };
        Self {
            name,
            mac,
            mtu,
            queues: Tap::adopt(descriptors),
            vhost: vhost.into_iter().map(File::from).collect(),
        }
    }
}

/// Makes the device.
///
/// # Errors
/// When the configuration makes no sense, or the host's kernel lacks what is needed; names the
/// interface.
pub(super) fn new(config: Config) -> io::Result<Box<dyn VirtioDevice>> {
    let name = config.name.clone();
    build(config).map_err(|error| {
        io::Error::new(error.kind(), format!("network interface {name:?}: {error}"))
    })
}

fn build(config: Config) -> io::Result<Box<dyn VirtioDevice>> {
    check(&config).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let Config {
        name,
        mac,
        mtu,
        queues,
        vhost,
    } = config;
    let interface = Interface::new(name, mac, mtu, queues)?;
    if vhost.is_empty() {
        return Ok(Box::new(UserNet::new(interface)));
    }
    Ok(Box::new(Vhost::new(KernelNet::new(interface, vhost)?)))
}

fn check(config: &Config) -> Result<(), String> {
    let (pairs, vhost) = (config.queues.len(), config.vhost.len());
    if pairs == 0 || pairs > MAX_PAIRS {
        return Err(format!("1 to {MAX_PAIRS} queue pairs, not {pairs}"));
    }
    if vhost != 0 && vhost != pairs {
        return Err(format!("{vhost} vhost-net files for {pairs} queue pairs"));
    }
    if config.mtu < MIN_MTU {
        return Err(format!("an MTU of {} is below {MIN_MTU}", config.mtu));
    }
    // IEEE 802: the first bit is that of a group of stations.
    if config.mac[0] & 1 != 0 || config.mac == [0; 6] {
        return Err(format!("{:02x?} is no address of one station", config.mac));
    }
    Ok(())
}
