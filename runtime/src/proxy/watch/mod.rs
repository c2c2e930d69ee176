//! What becomes of the container's network while it runs.
//!
//! `docker network connect` and `disconnect` call no runtime: dockerd puts interfaces into the
//! container's network namespace, takes them out, and moves the default route. A process of its own
//! watches the namespace, with the privileges that the monitor gives up, takes the interfaces that
//! come as those that were there, and tells the monitor by [`Plug`] messages. On any event it looks
//! at the whole namespace, and compares: so no event may be lost or misunderstood.

mod diff;
mod process;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use netlink::{Events, Netlink};
use proto::{Interface, Plug, encode};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use tracing::{debug, error};
use vmm::network::{MAX_QUEUE_PAIRS, net};

use crate::network::{Taken, take_one};
use diff::{Known, Namespace, diff, note};

/// Most descriptors of a message: a tap and a /dev/vhost-net for each pair of queues.
const MAX_DESCRIPTORS: usize = 2 * MAX_QUEUE_PAIRS as usize;

/// Starts to watch the namespace that `taken` is from, if there is anything of it: Docker connects no
/// container that has no network to another. Gives back where the messages come from. To be called
/// before there is any other thread.
///
/// # Errors
/// When the process cannot be started.
pub(crate) fn start(taken: &Taken, cpus: u32) -> Result<Option<OwnedFd>> {
    if taken.interfaces.is_empty() {
        return Ok(None);
    }
    let (ours, monitors) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    process::fork(|| {
        let interfaces = taken.interfaces.iter().cloned().map(Some);
        let known = taken.indexes.iter().copied().zip(interfaces).collect();
        let ended = process::confine(ours).and_then(|monitor| watch(known, monitor, cpus));
        if let Err(error) = ended {
            error!("networks are not connected any more: {error:#}");
        }
    })?;
    Ok(Some(monitors))
}

/// Goes on until it fails, or the monitor is gone.
fn watch(known: Known, monitor: BorrowedFd<'_>, cpus: u32) -> Result<()> {
    let mut events = Events::open().context("rtnetlink events")?;
    let mut watch = Watch {
        netlink: Netlink::open().context("rtnetlink socket")?,
        known,
        monitor,
        cpus,
    };
    loop {
        match watch.compare() {
            Err(error) if is_closed(&error) => return Ok(()),
            // Perhaps it makes sense again after the next event.
            Err(error) => error!("{error:#}"),
            Ok(()) => {}
        }
        events.wait().context("rtnetlink events")?;
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(&(Errno::PIPE | Errno::CONNRESET))
    )
}

struct Watch<'a> {
    netlink: Netlink,
    known: Known,
    monitor: BorrowedFd<'a>,
    cpus: u32,
}

impl Watch<'_> {
    /// Tells what has changed.
    fn compare(&mut self) -> Result<()> {
        let now = Namespace::look(&mut self.netlink)?;
        self.known
            .retain(|&index, told| told.is_some() || now.link(index).is_some());
        for (index, plug) in diff(&self.known, &now) {
            let device = match &plug {
                Plug::Add(interface) => match self.take(&now, index, interface) {
                    Ok(device) => Some(device),
                    Err(error) => {
                        error!("{error:#}");
                        self.known.insert(index, None);
                        continue;
                    }
                },
                _ => None,
            };
            debug!("{plug:?}");
            note(&mut self.known, index, &plug);
            self.send(&plug, device.as_ref())?;
        }
        Ok(())
    }

    fn take(&mut self, now: &Namespace, index: u32, interface: &Interface) -> Result<net::Config> {
        let link = now.link(index).context("it is gone")?;
        take_one(&mut self.netlink, link, interface, self.cpus)
    }

    fn send(&self, plug: &Plug, device: Option<&net::Config>) -> Result<()> {
        let frame = encode(plug)?;
        let taps = device.map_or(&[][..], |device| &device.queues);
        let vhost = device.map_or(&[][..], |device| &device.vhost);
        let descriptors = taps.iter().map(AsFd::as_fd);
        let descriptors: Vec<_> = descriptors.chain(vhost.iter().map(AsFd::as_fd)).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let bytes = [IoSlice::new(&frame)];
        sendmsg(self.monitor, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
