//! The contract between a virtio device and what runs it.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use libc::c_long;
use vmm_sys_util::epoll::EventSet;

use crate::Memory;
use crate::config_space::ConfigSpace;
use crate::queue::{QueueError, VirtQueue};

/// What kind of device it is: a constant beside each device.
#[derive(Debug)]
pub struct DeviceKind {
    /// For messages: "console".
    pub name: &'static str,
    /// The device id (virtio 1.3, section 5).
    pub id: u16,
    /// What the device asks of the kernel on the event loop's thread, beside what the loop itself
    /// does and [`crate::seccomp::ANY_THREAD`].
    pub system_calls: &'static [c_long],
    /// The requests to ioctl(2) that it makes there: one list for each part of it that makes some.
    pub requests: &'static [&'static [u64]],
}

/// What a device is; the same for as long as it lives.
#[derive(Clone, Debug)]
pub struct Traits {
    /// Its kind.
    pub kind: &'static DeviceKind,
    /// The feature bits of the device type that are offered (bits 0 to 23, section 2.2). The
    /// transport adds its own: VERSION_1, INDIRECT_DESC and EVENT_IDX.
    pub features: u64,
    /// The largest size of each queue, powers of two, at most 32768.
    pub queue_sizes: Vec<u16>,
    /// The device's configuration space.
    pub config: Arc<ConfigSpace>,
    /// It is busy, and wants an event loop for itself.
    pub own_loop: bool,
}

/// A virtio device without its transport and without a thread.
///
/// All methods are called by the thread of the event loop that the device was given to, in this
/// order: `traits` when it is given; `start` once the driver has set DRIVER_OK; then `kicked`,
/// `ready` and `config_written` as things happen; `stop` when the driver resets the device or the
/// VM ends; after that `start` may come again.
///
/// The event loop lends the device its queues; the device keeps only its own state. A device that
/// serves its queues itself (in the kernel by vhost, or on threads of its own) takes them out of
/// [`Activation::queues`] in `start`, is never kicked, and gives them up in `stop`.
pub trait VirtioDevice: Send {
    /// What the device is.
    fn traits(&self) -> Traits;

    /// The driver is ready. `watch` takes the file descriptors that the device wants to hear of by
    /// [`Self::ready`]. Queues that are left in `activation` are watched by the event loop.
    ///
    /// # Errors
    /// The device is marked as in need of a reset and stays stopped.
    fn start(
        &mut self,
        activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let _ = (activation, watch);
        Ok(())
    }

    /// The driver has made buffers available in `queues[index]`; all queues are lent, since a
    /// request in one is often answered in another. `index` is always a valid one.
    ///
    /// # Errors
    /// The device is stopped and marked as in need of a reset.
    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let _ = (index, queues, watch);
        Ok(())
    }

    /// A watched file descriptor is ready.
    ///
    /// # Errors
    /// The device is stopped and marked as in need of a reset.
    fn ready(
        &mut self,
        token: Token,
        events: EventSet,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let _ = (token, events, queues, watch);
        Ok(())
    }

    /// The driver has written `data` into the configuration space at `offset`.
    fn config_written(&mut self, offset: usize, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The guest will run no more: hands on what the queues still hold. Returns whether all of it
    /// is out; if not, `ready` is called as before until this returns true.
    fn drained(&mut self, queues: &mut [VirtQueue], watch: &mut dyn Watch) -> bool {
        let _ = (queues, watch);
        true
    }

    /// Back to the state before `start`: ends threads, forgets the driver. Watched file
    /// descriptors were removed by the caller. Also called after a `start` that failed.
    fn stop(&mut self) {}
}

/// What a device gets to work with from DRIVER_OK on.
pub struct Activation {
    /// Guest memory; the same for all devices.
    pub memory: Arc<Memory>,
    /// The feature bits that device and driver agreed on, those of the transport too.
    pub features: u64,
    /// The queues by index; those that the driver did not enable are there, but pop nothing.
    pub queues: Vec<VirtQueue>,
}

/// A name that a device gives to a file descriptor that it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u16);

/// The file descriptors that a device hears of. Removed all at once when the device stops.
pub trait Watch {
    /// Calls [`VirtioDevice::ready`] with `token` when one of `events` is there; replaces the
    /// events of an `fd` that is watched already. An empty set keeps the `fd` but stays silent
    /// (but for hang-up and error, as epoll does).
    ///
    /// # Errors
    /// EPERM for a file that is always ready (a regular file); else as epoll_ctl(2).
    fn watch(&mut self, fd: RawFd, token: Token, events: EventSet) -> io::Result<()>;

    /// Stops hearing of `fd`. To be called before the descriptor is closed.
    fn unwatch(&mut self, fd: RawFd);
}

/// Why a device cannot go on. The guest sees DEVICE_NEEDS_RESET (section 2.1.1).
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke the rules of the virtqueue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The driver broke the rules of the device.
    #[error("{0}")]
    Driver(String),
    /// The host failed the device.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted, on which object.
        what: String,
        /// How it failed.
        source: io::Error,
    },
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
