//! Devices whose queues the kernel serves (vhost): they are handed over by their eventfds, `kick`
//! and `call`, so that neither passes through this process.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use ::vhost::vhost_kern::VhostKernBackend;
use ::vhost::vhost_kern::vhost_binding::{
    VHOST, vhost_memory, vhost_vring_addr, vhost_vring_file, vhost_vring_state,
};
use ::vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueT;
use vm_memory::{Address, GuestMemory, GuestMemoryRegion};
use vmm_sys_util::ioctl::{_IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr};

use crate::Memory;
use crate::device::{Activation, DeviceError, Traits, VirtioDevice, Watch};
use crate::queue::VirtQueue;

/// `VHOST_GET_FEATURES` of linux/vhost.h.
pub(crate) const GET_FEATURES: u64 = ioctl_expr(_IOC_READ, VHOST, 0x00, 8);
/// Requests of linux/vhost.h that every such device makes, for the filters of system calls.
pub(crate) const REQUESTS: [u64; 9] = [
    GET_FEATURES,
    // VHOST_SET_FEATURES
    request::<u64>(0x00),
    // VHOST_SET_OWNER
    ioctl_expr(_IOC_NONE, VHOST, 0x01, 0),
    // VHOST_SET_MEM_TABLE
    request::<vhost_memory>(0x03),
    // VHOST_SET_VRING_NUM
    request::<vhost_vring_state>(0x10),
    // VHOST_SET_VRING_ADDR
    request::<vhost_vring_addr>(0x11),
    // VHOST_SET_VRING_BASE
    request::<vhost_vring_state>(0x12),
    // VHOST_SET_VRING_KICK
    request::<vhost_vring_file>(0x20),
    // VHOST_SET_VRING_CALL
    request::<vhost_vring_file>(0x21),
];

/// The number of a request that reads a `T`.
pub(crate) const fn request<T>(number: u32) -> u64 {
    ioctl_expr(_IOC_WRITE, VHOST, number, size_of::<T>() as u32)
}

/// What a kind of vhost device adds to [`Vhost`]. It may have several devices of the kernel, each
/// with a file; all methods are called on the event loop's thread.
pub(crate) trait Backend: Send {
    /// A device of the kernel, with the memory that it reaches.
    type Kernel: VhostBackend;

    /// What the device is.
    fn traits(&self) -> Traits;

    /// The device of the kernel with this index; `None` beyond the last.
    fn kernel(&self, device: usize, memory: &Arc<Memory>) -> Option<Self::Kernel>;

    /// The driver has accepted `features`. Returns the queues that each device of the kernel serves,
    /// as its rings, by rising indices; the others stay here.
    ///
    /// # Errors
    /// The device is marked as in need of a reset.
    fn start(&mut self, features: u64) -> Result<Vec<Range<usize>>, DeviceError>;

    /// Has a device of the kernel serve these of its rings, which are set up; the others are not
    /// enabled.
    ///
    /// # Errors
    /// The device is marked as in need of a reset.
    fn run(&mut self, device: usize, rings: &[usize]) -> Result<(), DeviceError>;

    /// Undoes [`Self::run`], of which only a part may have been done: the kernel uses no ring when it
    /// returns.
    fn halt(&mut self, device: usize);

    /// The driver has kicked a queue that stayed here; `index` is the one that the driver knows.
    ///
    /// # Errors
    /// The device is stopped and marked as in need of a reset.
    fn kicked(&mut self, index: usize, queue: &mut VirtQueue) -> Result<(), DeviceError>;

    /// The driver is gone. Called after `halt`.
    fn stop(&mut self);
}

/// A virtio device that the kernel serves.
pub(crate) struct Vhost<B> {
    backend: B,
    /// Devices of the kernel that this process owns already, which is for good.
    owned: usize,
    /// Those that may be using rings.
    running: usize,
    /// The queues that were handed over.
    lent: Vec<VirtQueue>,
    /// The driver's index of each queue that stayed here.
    kept: Vec<usize>,
}

impl<B: Backend> Vhost<B> {
    pub(crate) fn new(backend: B) -> Self {
        Self {
            backend,
            owned: 0,
            running: 0,
            lent: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Sets up a device of the kernel and those of `queues`, its rings, that are enabled, and runs
    /// it.
    fn hand_over(
        &mut self,
        device: usize,
        activation: &Activation,
        queues: &[VirtQueue],
    ) -> Result<(), DeviceError> {
        let memory = &activation.memory;
        let kernel = self.backend.kernel(device, memory).ok_or_else(|| {
            let missing = ::vhost::Error::InvalidOperation;
            failed("find the device", missing)
        })?;
        if device >= self.owned {
            kernel.set_owner().map_err(|e| failed("set the owner", e))?;
            self.owned = device + 1;
        }
        let known = kernel
            .get_features()
            .map_err(|e| failed("get the features", e))?;
        kernel
            .set_features(activation.features & known)
            .map_err(|e| failed("set the features", e))?;
        kernel
            .set_mem_table(&regions(memory)?)
            .map_err(|e| failed("set the memory", e))?;
        let enabled = |(_, queue): &(usize, &VirtQueue)| queue.ring().ready();
        let rings: Vec<_> = queues.iter().enumerate().filter(enabled).collect();
        for &(ring, queue) in &rings {
            set_up(&kernel, ring, queue).map_err(|e| failed("set up a ring", e))?;
        }
        self.running = device + 1;
        let rings: Vec<_> = rings.iter().map(|(ring, _)| *ring).collect();
        self.backend.run(device, &rings)
    }
}

impl<B: Backend> VirtioDevice for Vhost<B> {
    fn traits(&self) -> Traits {
        self.backend.traits()
    }

    fn start(
        &mut self,
        activation: &mut Activation,
        _watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let devices = self.backend.start(activation.features)?;
        let queues = std::mem::take(&mut activation.queues);
        for (index, queue) in queues.into_iter().enumerate() {
            if devices.iter().any(|rings| rings.contains(&index)) {
                self.lent.push(queue);
            } else {
                self.kept.push(index);
                activation.queues.push(queue);
            }
        }
        let lent = std::mem::take(&mut self.lent);
        let mut rest = lent.as_slice();
        let mut start_all = || {
            for (device, rings) in devices.iter().enumerate() {
                let (queues, others) = rest.split_at(rings.len().min(rest.len()));
                rest = others;
                self.hand_over(device, activation, queues)?;
            }
            Ok(())
        };
        let started = start_all();
        self.lent = lent;
        started
    }

    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        _watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        match (self.kept.get(index), queues.get_mut(index)) {
            (Some(&index), Some(queue)) => self.backend.kicked(index, queue),
            _ => Ok(()),
        }
    }

    fn stop(&mut self) {
        for device in 0..std::mem::take(&mut self.running) {
            self.backend.halt(device);
        }
        self.backend.stop();
        self.lent.clear();
        self.kept.clear();
    }
}

/// An opened vhost file, with the memory that it reaches.
pub(crate) struct Kernel {
    file: Arc<File>,
    memory: Arc<Memory>,
}

impl Kernel {
    pub(crate) fn new(file: &Arc<File>, memory: &Arc<Memory>) -> Self {
        Self {
            file: Arc::clone(file),
            memory: Arc::clone(memory),
        }
    }
}

impl AsRawFd for Kernel {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl VhostKernBackend for Kernel {
    type AS = Arc<Memory>;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }

    /// The transport has checked the rings; the library would refuse one that ends where memory
    /// does.
    fn is_valid(&self, _: &VringConfigData) -> bool {
        true
    }
}

/// Refuses a device of the kernel that does not know what the transport offers for every device, or
/// `feature`, which has a name for messages.
///
/// # Errors
/// Names the first that is missing.
pub(crate) fn require(known: u64, feature: u64, name: &str) -> io::Result<()> {
    let features = [
        (1 << VIRTIO_F_VERSION_1, "VERSION_1"),
        (1 << VIRTIO_RING_F_INDIRECT_DESC, "INDIRECT_DESC"),
        (1 << VIRTIO_RING_F_EVENT_IDX, "EVENT_IDX"),
        (feature, name),
    ];
    match features.iter().find(|(feature, _)| known & feature == 0) {
        None => Ok(()),
        Some((_, name)) => {
            let error = format!("vhost of the host's kernel does not know {name}");
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
    }
}

fn regions(memory: &Memory) -> Result<Vec<VhostUserMemoryRegionInfo>, DeviceError> {
    let region = |region: &_| {
        let start = GuestMemoryRegion::start_addr(region);
        let address = memory
            .get_host_address(start)
            .map_err(|_| failed("find the memory", ::vhost::Error::InvalidGuestMemory))?;
        // Not of a file: the kernel reaches it through this process.
        Ok(VhostUserMemoryRegionInfo {
            guest_phys_addr: start.raw_value(),
            memory_size: GuestMemoryRegion::len(region),
            userspace_addr: address as u64,
            mmap_offset: 0,
            mmap_handle: -1,
        })
    };
    memory.iter().map(region).collect()
}

fn set_up(kernel: &impl VhostBackend, ring: usize, queue: &VirtQueue) -> ::vhost::Result<()> {
    let state = queue.ring();
    kernel.set_vring_num(ring, state.size())?;
    kernel.set_vring_base(ring, state.next_avail())?;
    let addresses = VringConfigData {
        queue_max_size: state.max_size(),
        queue_size: state.size(),
        flags: 0,
        desc_table_addr: state.desc_table(),
        used_ring_addr: state.used_ring(),
        avail_ring_addr: state.avail_ring(),
        log_addr: None,
    };
    kernel.set_vring_addr(ring, &addresses)?;
    kernel.set_vring_call(ring, queue.call())?;
    kernel.set_vring_kick(ring, queue.kick())
}

fn failed(attempt: &str, error: ::vhost::Error) -> DeviceError {
    DeviceError::Host {
        what: format!("{attempt} of vhost"),
        source: io::Error::other(error),
    }
}

#[cfg(test)]
#[path = "vhost_test.rs"]
pub(crate) mod tests;
