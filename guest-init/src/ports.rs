//! The monitor's named virtio ports.
//!
//! A port gets its name some time after the console device was found: the device announces both in
//! messages of its own (virtio 1.3, 5.3.6.2). The kernel tells of it by a uevent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Where the kernel lists the ports, each a folder with a file `name`.
const CLASS: &str = "/sys/class/virtio-ports";
/// Seconds without news after which a port is given up.
const PATIENCE: i64 = 30;
/// The multicast group of the kernel's own uevents.
const KERNEL_EVENTS: u32 = 1;
/// The kernel's bound on the text of a uevent, UEVENT_BUFFER_SIZE, twice: with its header.
const EVENT_SIZE: usize = 4096;

/// Opens the port with this name; waits until it is there.
///
/// A port can be open only once at a time.
pub(crate) fn open(name: &str, options: &OpenOptions) -> Result<File> {
    let path = match find(name) {
        Some(path) => path,
        None => wait_for(name)?,
    };
    options
        .open(&path)
        .with_context(|| format!("open the virtio port {name} ({})", path.display()))
}

/// Opens the port with this name for input and output; waits until it is there.
pub(crate) fn open_both(name: &str) -> Result<(InputPort, OutputPort)> {
    let mut options = File::options();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK);
    let port = open(name, &options)?;
    Ok((InputPort(port.try_clone()?), OutputPort(port)))
}

/// The input of a port that is open for output, too, which does not wait in the kernel.
pub(crate) struct InputPort(File);

impl Read for InputPort {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(
                        &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
                        PollTimeout::NONE,
                    )?;
                }
                read => return read,
            }
        }
    }
}

/// A port that output goes to, and that fails once nobody takes it any more.
pub(crate) struct OutputPort(File);

impl OutputPort {
    /// Opens the port with this name; waits until it is there.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        open(name, &options).map(Self)
    }

    /// One side of a socket as the port.
    #[cfg(test)]
    pub(crate) fn fake(port: std::os::unix::net::UnixStream) -> io::Result<(InputPort, Self)> {
        port.set_nonblocking(true)?;
        let port = File::from(OwnedFd::from(port));
        Ok((InputPort(port.try_clone()?), Self(port)))
    }

    /// Waits until the port takes more.
    fn wait(&self) -> io::Result<()> {
        let mut ports = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        poll(&mut ports, PollTimeout::NONE)?;
        match ports[0].revents() {
            Some(events) if events.contains(PollFlags::POLLHUP) => {
                Err(ErrorKind::BrokenPipe.into())
            }
            _ => Ok(()),
        }
    }
}

impl Write for OutputPort {
    /// Waits by poll(2): a write that the kernel lets wait for a port whose other side is closed
    /// never returns.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The device node of the port with this name.
fn find(name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir(CLASS).ok()?;
    ports.flatten().find_map(|port| {
        let its_name = fs::read_to_string(port.path().join("name")).ok()?;
        (its_name.trim_end() == name).then(|| Path::new("/dev").join(port.file_name()))
    })
}

/// Looks again at each uevent of a port.
fn wait_for(name: &str) -> Result<PathBuf> {
    let events = subscribe().context("listen to the kernel's uevents (needs CONFIG_NET)")?;
    let mut event = [0; EVENT_SIZE];
    loop {
        // First after the subscription, too: it may have come in between.
        if let Some(path) = find(name) {
            return Ok(path);
        }
        loop {
            match recv(events.as_raw_fd(), &mut event, MsgFlags::empty()) {
                Ok(length) if is_of_port(event.get(..length).unwrap_or_default()) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                // So many that some were dropped, perhaps ours.
                Err(Errno::ENOBUFS) => break,
                Err(Errno::EAGAIN) => bail!(
                    "the monitor offers no virtio port named {name}, or the kernel and /modules \
                     have no driver for it (virtio_pci, virtio_console)"
                ),
                Err(errno) => return Err(errno).context("receive a uevent"),
            }
        }
    }
}

/// A socket that receives the kernel's uevents.
fn subscribe() -> Result<OwnedFd> {
    let events = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    setsockopt(
        &events,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(PATIENCE),
    )?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS))?;
    Ok(events)
}

/// Whether a uevent, `ACTION@PATH` and then `KEY=VALUE`s with a zero byte after each, is a port's.
fn is_of_port(event: &[u8]) -> bool {
    event
        .split(|&byte| byte == 0)
        .any(|field| field == b"SUBSYSTEM=virtio-ports")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENT: &[u8] = b"change@/devices/pci0000:00/0000:00:03.0/virtio0/virtio-ports/vport0p1\0\
        ACTION=change\0DEVPATH=/devices/pci0000:00/0000:00:03.0/virtio0/virtio-ports/vport0p1\0\
        SUBSYSTEM=virtio-ports\0MAJOR=245\0MINOR=1\0DEVNAME=vport0p1\0SEQNUM=815\0";

    #[test]
    fn events_of_ports_are_told_from_others() {
        assert!(is_of_port(EVENT));
        assert!(!is_of_port(b"add@/devices/x\0SUBSYSTEM=block\0"));
        assert!(!is_of_port(b"add@/devices/SUBSYSTEM=virtio-ports/x\0"));
        assert!(!is_of_port(b""));
    }

    proptest! {
        #[test]
        fn any_event_is_read(event in proptest::collection::vec(any::<u8>(), 0..300)) {
            let event = event.as_slice();
            prop_assume!(!event.windows(4).any(|w| w == b"SUBS"));
            prop_assert!(!is_of_port(event));
            prop_assert!(is_of_port(&[event, b"\0SUBSYSTEM=virtio-ports\0", event].concat()));
        }
    }

    #[test]
    fn a_port_that_does_not_exist_is_not_found() {
        assert_eq!(find("runq.nothing"), None);
    }

    #[test]
    fn uevents_can_be_subscribed_to() {
        subscribe().unwrap();
    }
}
