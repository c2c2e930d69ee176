//! Network interfaces that come and go while the guest runs: the host's part of a change, after which
//! the guest's init hears of it.
//!
//! All on the event loop's thread, but for the device of an interface, which has a thread of its own.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use devices::dev::{DeviceSpec, net};
use devices::event_loop::Stopper;
use libc::c_long;
use proto::{Interface, MAX_FRAME, MacAddress, Plug};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tracing::{error, info, warn};

use crate::board::Bus;
use crate::device_loop::{DeviceLoop, DeviceThreads};
use crate::network::{DEFAULT_MTU, MAX_QUEUE_PAIRS};

/// What this takes, beside [`devices::dev::net::KIND`] and the start of a thread.
pub(crate) const SYSTEM_CALLS: [c_long; 2] = [libc::SYS_recvmsg, libc::SYS_epoll_create1];

/// A tap's queue and a vhost-net file for each pair.
const MAX_DESCRIPTORS: usize = 2 * MAX_QUEUE_PAIRS as usize;
/// The length of a frame is in front of it.
const MAX_MESSAGE: usize = 4 + MAX_FRAME;

/// What comes of the network's changes on the host.
pub(crate) struct Plugs {
    socket: OwnedFd,
    bus: Arc<dyn Bus>,
    threads: DeviceThreads,
    /// The slots of the guest's interfaces.
    slots: BTreeMap<MacAddress, u8>,
    /// The one that the guest is to let go of.
    leaving: Option<MacAddress>,
    vm: Stopper,
}

impl Plugs {
    /// Changes that are told by `socket`, of a guest whose interfaces have these `slots`. Devices that
    /// cannot go on end the VM by `vm`.
    pub(crate) fn new(
        socket: OwnedFd,
        bus: Arc<dyn Bus>,
        threads: DeviceThreads,
        slots: BTreeMap<MacAddress, u8>,
        vm: Stopper,
    ) -> Self {
        Self {
            socket,
            bus,
            threads,
            slots,
            leaving: None,
            vm,
        }
    }

    /// Whether the next change may be received: not while an interface is leaving, as its address may
    /// be the next one's, too.
    pub(crate) fn is_ready(&self) -> bool {
        self.leaving.is_none()
    }

    /// Receives a change and does the host's part of it, without waiting. Returns what the guest is to
    /// do then; none if there is nothing to do, or the change makes no sense.
    ///
    /// # Errors
    /// When no more will come.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Plug>> {
        let (bytes, descriptors) = match receive(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            received => received?,
        };
        let done = parse(&bytes).and_then(|plug| {
            self.execute(&plug, descriptors)?;
            Ok(plug)
        });
        if let Err(error) = &done {
            warn!("a change of the network: {error:#}");
        }
        Ok(done.ok())
    }

    fn execute(&mut self, plug: &Plug, descriptors: Vec<OwnedFd>) -> Result<()> {
        let fits = descriptors.is_empty() || matches!(plug, Plug::Add(_));
        ensure!(fits, "descriptors come with an interface only");
        let known = |mac: &MacAddress| {
            let known = self.slots.contains_key(mac);
            ensure!(known, "there is no interface {mac}");
            Ok(())
        };
        match plug {
            Plug::Add(interface) => {
                let Interface { name, mac, .. } = interface;
                self.add(interface, descriptors)
                    .with_context(|| format!("network interface {name} ({mac})"))?;
            }
            Plug::Remove(mac) => {
                known(mac)?;
                self.leaving = Some(*mac);
            }
            Plug::Routes { mac, .. } => known(mac)?,
        }
        Ok(())
    }

    fn add(&mut self, interface: &Interface, descriptors: Vec<OwnedFd>) -> Result<()> {
        let Interface { name, mac, mtu, .. } = interface;
        ensure!(!self.slots.contains_key(mac), "it is there already");
        let mtu = match mtu {
            0 => DEFAULT_MTU,
            &mtu => u16::try_from(mtu).context("its MTU")?,
        };
        let device = net::Config::adopt(name.clone(), mac.0, mtu, descriptors);
        let (device_loop, handle) = DeviceLoop::new(DeviceSpec::Net(device).build()?)?;
        let slot = self.bus.attach(handle)?;
        let started = self.threads.start(slot, device_loop, self.vm.clone());
        if started.is_err() {
            self.bus.detach(slot);
        }
        started.context("its thread")?;
        info!("network interface {name} ({mac}) in slot {slot}");
        self.slots.insert(*mac, slot);
        Ok(())
    }

    /// The guest says that it has let go of an interface. The device goes, whether it has or not.
    pub(crate) fn unplugged(&mut self, mac: MacAddress) {
        if self.leaving != Some(mac) {
            return;
        }
        self.leaving = None;
        if let Some(slot) = self.slots.remove(&mac) {
            info!("network interface {mac} leaves slot {slot}");
            self.bus.detach(slot);
            if let Err(error) = self.threads.finish(slot) {
                error!("network interface {mac}: {error:#}");
            }
        }
    }
}

impl AsRawFd for Plugs {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// One message and its descriptors; those of a message that is not complete are closed.
fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        flags,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    // What is cut off is no message.
    let complete = !received.flags.intersects(cut);
    bytes.truncate(if complete { received.bytes } else { 0 });
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((bytes, descriptors.flatten().collect()))
}

/// Exactly one frame.
fn parse(mut bytes: &[u8]) -> Result<Plug> {
    let plug = proto::recv(&mut bytes)?;
    ensure!(bytes.is_empty(), "{} bytes too many", bytes.len());
    Ok(plug)
}

#[cfg(test)]
#[path = "plug_test.rs"]
pub(crate) mod tests;
