//! What all transports share: status, features and queue registers (virtio 1.3, sections 2.1 to 2.7
//! and 3.1). A transport decodes its bus's accesses to calls of this, and binds eventfds when told.

use std::io;
use std::sync::Arc;

use tracing::debug;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::handle::{DeviceHandle, RunState};
use super::{Activation, ConfigSpace, DeviceType, VirtQueue};
use crate::Memory;

/// Device status bits (section 2.1).
pub mod status {
    use super::*;

    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
    /// The guest knows how to drive the device.
    pub const DRIVER: u8 = VIRTIO_CONFIG_S_DRIVER as u8;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
    /// The device cannot go on.
    pub const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
    /// The guest has given up on the device.
    pub const FAILED: u8 = VIRTIO_CONFIG_S_FAILED as u8;
}

/// Feature bits that the transport offers for every device (section 6).
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Bits that belong to the device type (section 2.2): 0 to 23, and 50 to 63.
const DEVICE_FEATURES: u64 = 0x00ff_ffff | !0 << 50;

/// The bits that a driver may set.
const DRIVER_STATUS: u8 =
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK | status::FAILED;

/// One of a queue's three areas (section 2.7); their addresses are set in halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Descriptor table.
    Descriptors,
    /// Available ring, "driver area".
    Driver,
    /// Used ring, "device area".
    Device,
}

/// What a transport has to do after a write of the status register.
#[derive(Debug)]
pub enum StatusChange {
    /// Nothing.
    None,
    /// The driver is ready: bind these eventfds, then call [`Transport::start`].
    Ready(Vec<QueueEvents>),
    /// The device is being reset: undo all bindings, and forget the transport's own registers.
    Reset,
}

/// The two eventfds of a queue that the driver has enabled.
#[derive(Debug)]
pub struct QueueEvents {
    /// The queue.
    pub index: u16,
    /// To be signalled when the driver notifies the queue.
    pub kick: EventFd,
    /// Signalled by the device; to be bound to the queue's interrupt.
    pub call: EventFd,
}

/// The registers of one virtio device. Methods are called by vCPU threads under the lock of the
/// device's bus function, and never wait for the device.
pub struct Transport {
    device: DeviceHandle,
    memory: Arc<Memory>,
    state: State,
    /// A reset waits for the device to stop.
    resetting: bool,
}

/// What a reset brings back to the start.
struct State {
    /// As the driver wrote it; NEEDS_RESET is not among its bits.
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<Queue>,
    /// Made at DRIVER_OK, sent with [`Transport::start`].
    pending: Option<Activation>,
}

/// A queue of a size that virtio does not know.
#[derive(Debug, thiserror::Error)]
#[error("virtio {device}: queue {index} has the invalid size {size}")]
pub struct QueueSizeError {
    device: DeviceType,
    index: usize,
    size: u16,
}

impl Transport {
    /// The registers in front of `device`, whose queues are in `memory`.
    ///
    /// # Errors
    /// When a queue size of the device is not a power of two up to 32768.
    pub fn new(device: DeviceHandle, memory: Arc<Memory>) -> Result<Self, QueueSizeError> {
        let queues = device.queue_sizes().iter().enumerate();
        let queues = queues
            .map(|(index, &size)| {
                Queue::new(size).map_err(|_| QueueSizeError {
                    device: device.device_type(),
                    index,
                    size,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            device,
            memory,
            state: State {
                status: 0,
                device_feature_select: 0,
                driver_feature_select: 0,
                driver_features: 0,
                queue_select: 0,
                queues,
                pending: None,
            },
            resetting: false,
        })
    }

    /// What the device is.
    pub fn device_type(&self) -> DeviceType {
        self.device.device_type()
    }

    /// The device's configuration space.
    pub fn config(&self) -> &Arc<ConfigSpace> {
        self.device.config()
    }

    /// How many queues the device has.
    pub fn queue_count(&self) -> u16 {
        self.state.queues.len() as u16
    }

    /// The status register: zero once a reset is complete.
    pub fn status(&mut self) -> u8 {
        self.settle();
        match self.device.state() {
            RunState::Broken => self.state.status | status::NEEDS_RESET,
            _ => self.state.status,
        }
    }

    /// A write of the status register. Bits are only ever added, except by the reset, a write of
    /// zero. FEATURES_OK stays clear if the features are not acceptable (section 2.2.2), and
    /// DRIVER_OK without it.
    pub fn write_status(&mut self, value: u8) -> StatusChange {
        if value == 0 {
            return self.reset();
        }
        if !self.settle() {
            return StatusChange::None;
        }
        let mut added = value & DRIVER_STATUS & !self.state.status;
        if added & status::FEATURES_OK != 0 && !self.features_acceptable() {
            let (device, features) = (self.device_type(), self.state.driver_features);
            debug!("virtio {device}: the driver's features {features:#x} are refused");
            added &= !status::FEATURES_OK;
        }
        self.state.status |= added & !status::DRIVER_OK;
        let agreed = self.state.status & status::FEATURES_OK != 0;
        if added & status::DRIVER_OK == 0 || !agreed {
            return StatusChange::None;
        }
        self.state.status |= status::DRIVER_OK;
        StatusChange::Ready(self.prepare())
    }

    /// Starts the device, after [`StatusChange::Ready`].
    pub fn start(&mut self) {
        match self.state.pending.take() {
            Some(activation) => self.device.start(activation),
            None => self.device.fail(),
        }
    }

    /// Whether the driver has set DRIVER_OK, and no reset has begun since.
    pub fn is_live(&self) -> bool {
        self.state.status & status::DRIVER_OK != 0 && !self.resetting
    }

    /// Selects which half of the offered feature bits [`Self::device_features`] shows.
    pub fn select_device_features(&mut self, half: u32) {
        if self.settle() {
            self.state.device_feature_select = half;
        }
    }

    /// Which half is selected.
    pub fn device_feature_select(&self) -> u32 {
        self.state.device_feature_select
    }

    /// The selected half of the feature bits that are offered.
    pub fn device_features(&self) -> u32 {
        half(self.offered(), self.state.device_feature_select)
    }

    /// Selects which half of the accepted feature bits is written next.
    pub fn select_driver_features(&mut self, half: u32) {
        if self.settle() {
            self.state.driver_feature_select = half;
        }
    }

    /// Which half is selected.
    pub fn driver_feature_select(&self) -> u32 {
        self.state.driver_feature_select
    }

    /// The selected half of the feature bits that the driver has accepted.
    pub fn driver_features(&self) -> u32 {
        half(self.state.driver_features, self.state.driver_feature_select)
    }

    /// Sets the selected half; ignored once FEATURES_OK is set (section 3.1.1).
    pub fn write_driver_features(&mut self, value: u32) {
        if !self.settle() || self.state.status & status::FEATURES_OK != 0 {
            return;
        }
        let (features, value) = (self.state.driver_features, u64::from(value));
        self.state.driver_features = match self.state.driver_feature_select {
            0 => features & !0 << 32 | value,
            1 => features & !0 >> 32 | value << 32,
            _ => features,
        };
    }

    /// Selects the queue that the queue registers are about.
    pub fn select_queue(&mut self, index: u16) {
        if self.settle() {
            self.state.queue_select = index;
        }
    }

    /// Which queue is selected; it may be one that does not exist.
    pub fn queue_select(&self) -> u16 {
        self.state.queue_select
    }

    /// The size of the selected queue: the largest possible until it is set, 0 if there is no such
    /// queue.
    pub fn queue_size(&self) -> u16 {
        self.queue().map_or(0, QueueT::size)
    }

    /// Sets the size of the selected queue; invalid ones are ignored.
    pub fn write_queue_size(&mut self, size: u16) {
        let set = self.configurable_queue().map(|q| q.try_set_size(size));
        self.report("size", set);
    }

    /// Whether the selected queue is enabled.
    pub fn queue_enabled(&self) -> bool {
        self.queue().is_some_and(QueueT::ready)
    }

    /// Enables the selected queue. It is checked at DRIVER_OK.
    pub fn enable_queue(&mut self) {
        if let Some(queue) = self.configurable_queue() {
            queue.set_ready(true);
        }
    }

    /// The address of an area of the selected queue.
    pub fn queue_address(&self, area: Area) -> u64 {
        self.queue().map_or(0, |queue| address(queue, area))
    }

    /// Sets one half or both of the address of an area of the selected queue. An address that is
    /// not aligned as it must be is ignored.
    pub fn write_queue_address(&mut self, area: Area, low: Option<u32>, high: Option<u32>) {
        let set = self.configurable_queue().map(|queue| {
            let old = address(queue, area);
            let low = low.map_or(old & !0 >> 32, u64::from);
            let high = high.map_or(old >> 32, u64::from);
            let new = GuestAddress(high << 32 | low);
            match area {
                Area::Descriptors => queue.try_set_desc_table_address(new),
                Area::Driver => queue.try_set_avail_ring_address(new),
                Area::Device => queue.try_set_used_ring_address(new),
            }
        });
        self.report("address", set);
    }

    /// A write to the device's configuration space.
    pub fn write_config(&mut self, offset: usize, data: &[u8]) {
        if self.device.state() == RunState::Started {
            self.device.config_written(offset, data);
        }
    }

    /// Completes a reset whose device has stopped meanwhile. Returns whether registers may be
    /// written, that is whether no reset is under way.
    pub(super) fn settle(&mut self) -> bool {
        if self.resetting && self.device.state() == RunState::Stopped {
            self.reset_done();
        }
        !self.resetting
    }

    fn reset(&mut self) -> StatusChange {
        if !self.settle() {
            return StatusChange::None;
        }
        // Named one by one, so that a new register cannot be forgotten here. The status is cleared
        // when the device has stopped: until then the driver waits for it to read as zero.
        let State {
            status: _,
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
            queues,
            pending,
        } = &mut self.state;
        *device_feature_select = 0;
        *driver_feature_select = 0;
        *driver_features = 0;
        *queue_select = 0;
        queues.iter_mut().for_each(QueueT::reset);
        *pending = None;

        match self.device.state() {
            RunState::Started | RunState::Stopping => {
                self.resetting = true;
                self.device.stop();
                self.settle();
            }
            RunState::Stopped | RunState::Broken => self.reset_done(),
        }
        StatusChange::Reset
    }

    fn reset_done(&mut self) {
        self.resetting = false;
        self.state.status = 0;
        self.device.recover();
        // The next driver is not to hear of what happened before. Fails if there is nothing.
        let _ = self.config().call().read();
    }

    fn offered(&self) -> u64 {
        self.device.features() & DEVICE_FEATURES | TRANSPORT_FEATURES
    }

    fn features_acceptable(&self) -> bool {
        let accepted = self.state.driver_features;
        accepted & !self.offered() == 0 && accepted & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn queue(&self) -> Option<&Queue> {
        self.state.queues.get(usize::from(self.state.queue_select))
    }

    /// The selected queue, if it is one whose registers may be changed.
    fn configurable_queue(&mut self) -> Option<&mut Queue> {
        if !self.settle() || self.state.status & status::DRIVER_OK != 0 {
            return None;
        }
        let index = usize::from(self.state.queue_select);
        self.state.queues.get_mut(index).filter(|q| !q.ready())
    }

    fn report(&self, what: &str, set: Option<Result<(), virtio_queue::Error>>) {
        if let Some(Err(error)) = set {
            let (device, queue) = (self.device_type(), self.queue_select());
            debug!("virtio {device}: {what} of queue {queue} ignored: {error}");
        }
    }

    /// Makes what the device is started with. If that is not possible, [`Self::start`] will mark
    /// the device as in need of a reset.
    fn prepare(&mut self) -> Vec<QueueEvents> {
        match self.activate() {
            Ok((activation, events)) => {
                self.state.pending = Some(activation);
                events
            }
            Err(error) => {
                self.device.complain(&error);
                Vec::new()
            }
        }
    }

    fn activate(&self) -> Result<(Activation, Vec<QueueEvents>), ActivateError> {
        let features = self.state.driver_features;
        let mut events = Vec::new();
        let mut queues = Vec::new();
        for (index, registers) in (0..self.queue_count()).zip(&self.state.queues) {
            let ring = self
                .ring(registers)
                .ok_or(ActivateError::BadRing { index })?;
            let (kick, call) = (
                EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
                EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            );
            if ring.ready() {
                events.push(QueueEvents {
                    index,
                    kick: kick.try_clone()?,
                    call: call.try_clone()?,
                });
            }
            let memory = Arc::clone(&self.memory);
            queues.push(VirtQueue::new(ring, memory, kick, call));
        }
        let activation = Activation {
            memory: Arc::clone(&self.memory),
            features,
            queues,
        };
        Ok((activation, events))
    }

    /// A ring as the registers describe it; `None` if it is enabled and not in guest memory.
    fn ring(&self, registers: &Queue) -> Option<Queue> {
        let size = usize::from(registers.size());
        // Section 2.7: sizes of the areas. Queue::is_valid is not used, as it refuses a ring that
        // ends where a memory region does.
        let areas = [
            (registers.desc_table(), 16 * size),
            (registers.avail_ring(), 6 + 2 * size),
            (registers.used_ring(), 6 + 8 * size),
        ];
        let in_memory = areas
            .iter()
            .all(|&(start, length)| self.memory.check_range(GuestAddress(start), length));
        if registers.ready() && !in_memory {
            return None;
        }
        let mut ring = Queue::try_from(registers.state()).ok()?;
        ring.set_event_idx(self.state.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
        Some(ring)
    }
}

#[derive(Debug, thiserror::Error)]
enum ActivateError {
    #[error("the rings of queue {index} are not in guest memory")]
    BadRing { index: u16 },
    #[error("make an eventfd: {0}")]
    EventFd(#[from] io::Error),
}

fn address(queue: &Queue, area: Area) -> u64 {
    match area {
        Area::Descriptors => queue.desc_table(),
        Area::Driver => queue.avail_ring(),
        Area::Device => queue.used_ring(),
    }
}

/// One 32-bit half of feature bits; there are no bits from 64 on.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}
