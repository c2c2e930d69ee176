//! What all transports share: status, features and queue registers (virtio 1.3, sections 2.1 to 2.7
//! and 3.1). A transport decodes its bus's accesses to calls of this, and binds eventfds when told.

pub mod ccw;
mod kick;
pub mod pci;
mod queue_registers;

use std::sync::Arc;

use tracing::debug;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::Memory;
use crate::config_space::ConfigSpace;
use crate::device::{Activation, DeviceKind};
use crate::event_loop::{DeviceHandle, RunState};
use queue_registers::ActivateError;
pub use queue_registers::{Area, QueueEvents, QueueRegisters, QueueSizeError};

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

/// What a transport has to do after a write of the status register.
pub enum StatusChange {
    /// Nothing.
    None,
    /// The driver is ready: bind the eventfds of the queues, and pass this to [`Transport::start`].
    Ready(Prepared),
    /// The device is being reset: undo all bindings, and forget the transport's own registers.
    Reset,
}

/// All that a device is started with.
#[must_use]
pub struct Prepared {
    activation: Result<Activation, ActivateError>,
    /// The eventfds of the queues that the driver has enabled; none if they cannot be used.
    pub events: Vec<QueueEvents>,
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
    queues: QueueRegisters,
}

impl Transport {
    /// The registers in front of `device`, whose queues are in `memory`.
    ///
    /// # Errors
    /// When a queue size of the device is not a power of two up to 32768.
    pub fn new(device: DeviceHandle, memory: Arc<Memory>) -> Result<Self, QueueSizeError> {
        let traits = device.traits();
        let queues = QueueRegisters::new(traits.kind, &traits.queue_sizes)?;
        Ok(Self {
            device,
            memory,
            state: State {
                status: 0,
                device_feature_select: 0,
                driver_feature_select: 0,
                driver_features: 0,
                queues,
            },
            resetting: false,
        })
    }

    /// What the device is.
    pub fn kind(&self) -> &'static DeviceKind {
        self.device.traits().kind
    }

    /// The device's configuration space.
    pub fn config(&self) -> &Arc<ConfigSpace> {
        &self.device.traits().config
    }

    /// The status register: zero once a reset is complete.
    pub fn status(&mut self) -> u8 {
        self.finish_reset();
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
        if !self.finish_reset() {
            return StatusChange::None;
        }
        let mut added = value & DRIVER_STATUS & !self.state.status;
        if added & status::FEATURES_OK != 0 && !self.features_acceptable() {
            let (device, features) = (self.kind(), self.state.driver_features);
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

    /// Starts the device with what came with [`StatusChange::Ready`]. If the driver's queues cannot
    /// be used, the device becomes one in need of a reset.
    pub fn start(&mut self, prepared: Prepared) {
        match prepared.activation {
            Ok(activation) => self.device.start(activation),
            Err(error) => self.device.fail(&error),
        }
    }

    /// Whether a transport's own registers may be written: no reset is under way.
    pub fn is_writable(&mut self) -> bool {
        self.finish_reset()
    }

    /// Whether the driver has set DRIVER_OK, and no reset has begun since.
    pub fn is_live(&self) -> bool {
        self.state.status & status::DRIVER_OK != 0 && !self.resetting
    }

    /// Selects which half of the offered feature bits [`Self::device_features`] shows.
    pub fn select_device_features(&mut self, half: u32) {
        if let Some(state) = self.writable() {
            state.device_feature_select = half;
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
        if let Some(state) = self.writable() {
            state.driver_feature_select = half;
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
        let Some(state) = self.writable() else {
            return;
        };
        if state.status & status::FEATURES_OK != 0 {
            return;
        }
        let (features, value) = (state.driver_features, u64::from(value));
        state.driver_features = match state.driver_feature_select {
            0 => features & !0 << 32 | value,
            1 => features & !0 >> 32 | value << 32,
            _ => features,
        };
    }

    /// The queue registers.
    pub fn queues(&self) -> &QueueRegisters {
        &self.state.queues
    }

    /// The queue registers, to be written; `None` from DRIVER_OK to the end of the reset.
    pub fn queue_setup(&mut self) -> Option<&mut QueueRegisters> {
        let state = self.writable()?;
        (state.status & status::DRIVER_OK == 0).then_some(&mut state.queues)
    }

    /// Selects the queue that the queue registers are about.
    pub fn select_queue(&mut self, index: u16) {
        if let Some(state) = self.writable() {
            state.queues.select(index);
        }
    }

    /// A write to the device's configuration space.
    pub fn write_config(&mut self, offset: usize, data: &[u8]) {
        if self.device.state() == RunState::Started {
            self.config().write(offset, data);
            self.device.write_config(offset, data);
        }
    }

    /// The registers, to be written; `None` while a reset is under way.
    fn writable(&mut self) -> Option<&mut State> {
        self.finish_reset().then_some(&mut self.state)
    }

    /// Completes a reset whose device has stopped meanwhile. Returns whether registers may be
    /// written, that is whether no reset is under way.
    fn finish_reset(&mut self) -> bool {
        if self.resetting && self.device.state() == RunState::Stopped {
            self.reset_done();
        }
        !self.resetting
    }

    fn reset(&mut self) -> StatusChange {
        if !self.finish_reset() {
            return StatusChange::None;
        }
        // Named one by one, so that a new register cannot be forgotten here. The status is cleared
        // when the device has stopped: until then the driver waits for it to read as zero.
        let State {
            status: _,
            device_feature_select,
            driver_feature_select,
            driver_features,
            queues,
        } = &mut self.state;
        *device_feature_select = 0;
        *driver_feature_select = 0;
        *driver_features = 0;
        queues.reset();

        match self.device.state() {
            RunState::Started | RunState::Stopping => {
                self.resetting = true;
                self.device.stop();
                self.finish_reset();
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
        self.device.traits().features & DEVICE_FEATURES | TRANSPORT_FEATURES
    }

    fn features_acceptable(&self) -> bool {
        let accepted = self.state.driver_features;
        accepted & !self.offered() == 0 && accepted & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn prepare(&self) -> Prepared {
        let features = self.state.driver_features;
        let event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        match self.state.queues.activate(&self.memory, event_idx) {
            Ok((queues, events)) => Prepared {
                activation: Ok(Activation {
                    memory: Arc::clone(&self.memory),
                    features,
                    queues,
                }),
                events,
            },
            Err(error) => Prepared {
                activation: Err(error),
                events: Vec::new(),
            },
        }
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
