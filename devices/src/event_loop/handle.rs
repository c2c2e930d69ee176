//! What a transport holds of a device that lives on an event loop's thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use event_manager::{RemoteEndpoint, SubscriberId};
use tracing::{debug, warn};

use super::{Subscriber, lend};
use crate::config_space::ConfigSpace;
use crate::device::{Activation, DeviceType, VirtioDevice};
use crate::log_limit::LogLimit;

/// How many configuration writes may wait for the device; a guest that is faster loses some, and
/// cannot make the monitor's memory grow.
const MAX_PENDING_WRITES: u32 = 64;

/// Sends a device the commands that its driver's register accesses amount to. None of them waits:
/// the event loop executes them in order. For one transport.
pub struct DeviceHandle {
    id: SubscriberId,
    endpoint: RemoteEndpoint<Subscriber>,
    link: Arc<Link>,
}

/// What transport and worker share: the device's fixed properties, and how it is.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) device_type: DeviceType,
    pub(crate) features: u64,
    pub(crate) queue_sizes: Vec<u16>,
    pub(crate) config: Arc<ConfigSpace>,
    state: AtomicU8,
    pending_writes: AtomicU32,
    log_limit: LogLimit,
}

/// How a device is. Only the transport starts the transitions to `Started` and `Stopping`, only
/// the worker those to `Broken` and `Stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RunState {
    /// Not started, or stopped by a reset.
    Stopped,
    /// Started, or about to be.
    Started,
    /// Failed; waits for a reset.
    Broken,
    /// A reset is under way.
    Stopping,
}

impl DeviceHandle {
    pub(crate) fn new(
        id: SubscriberId,
        endpoint: RemoteEndpoint<Subscriber>,
        link: Arc<Link>,
    ) -> Self {
        Self { id, endpoint, link }
    }

    /// What the device is.
    pub fn device_type(&self) -> DeviceType {
        self.link.device_type
    }

    /// The feature bits of the device type that it offers.
    pub fn features(&self) -> u64 {
        self.link.features
    }

    /// The largest size of each queue.
    pub fn queue_sizes(&self) -> &[u16] {
        &self.link.queue_sizes
    }

    /// The device's configuration space.
    pub fn config(&self) -> &Arc<ConfigSpace> {
        &self.link.config
    }

    pub(crate) fn state(&self) -> RunState {
        self.link.state()
    }

    /// Starts the device; if that fails, its state becomes `Broken`.
    pub(crate) fn start(&self, activation: Activation) {
        self.link.set_state(RunState::Started);
        let id = self.id;
        let sent = self.endpoint.fire(move |manager| {
            lend(manager, id, |worker, ops| worker.start(activation, ops));
        });
        if let Err(error) = sent {
            self.link.complain(&error);
            self.link.broken();
        }
    }

    /// Marks a device that was not started as in need of a reset.
    pub(crate) fn fail(&self) {
        self.link.set_state(RunState::Started);
        self.link.broken();
    }

    /// Says in the log why the device is in need of a reset.
    pub(crate) fn complain(&self, reason: &dyn fmt::Display) {
        self.link.complain(reason);
    }

    /// Takes a broken device back to `Stopped`. The worker has let go of it already.
    pub(crate) fn recover(&self) {
        self.link.set_state(RunState::Stopped);
    }

    /// Stops the device; done when its state is `Stopped`. Any state but `Stopping`.
    pub(crate) fn stop(&self) {
        self.link.set_state(RunState::Stopping);
        let id = self.id;
        let sent = self.endpoint.fire(move |manager| {
            lend(manager, id, super::worker::Worker::stop);
        });
        // Without a loop there is nobody who could still use the queues.
        if sent.is_err() {
            self.link.set_state(RunState::Stopped);
        }
    }

    /// Tells the device of a write to its configuration space.
    pub(crate) fn config_written(&self, offset: usize, data: &[u8]) {
        if self.link.pending_writes.fetch_add(1, Ordering::Relaxed) >= MAX_PENDING_WRITES {
            self.link.pending_writes.fetch_sub(1, Ordering::Relaxed);
            debug!("virtio {}: configuration write lost", self.device_type());
            return;
        }
        let (id, data, link) = (self.id, data.to_vec(), Arc::clone(&self.link));
        // It does not matter to a device without a loop.
        let _ = self.endpoint.fire(move |manager| {
            link.pending_writes.fetch_sub(1, Ordering::Relaxed);
            lend(manager, id, |worker, _| {
                worker.config_written(offset, &data)
            });
        });
    }
}

impl Link {
    pub(crate) fn new(device: &dyn VirtioDevice) -> Self {
        Self {
            device_type: device.device_type(),
            features: device.features(),
            queue_sizes: device.queue_sizes(),
            config: device.config(),
            state: AtomicU8::new(RunState::Stopped as u8),
            pending_writes: AtomicU32::new(0),
            log_limit: LogLimit::default(),
        }
    }

    pub(crate) fn state(&self) -> RunState {
        match self.state.load(Ordering::Acquire) {
            s if s == RunState::Stopped as u8 => RunState::Stopped,
            s if s == RunState::Started as u8 => RunState::Started,
            s if s == RunState::Broken as u8 => RunState::Broken,
            _ => RunState::Stopping,
        }
    }

    fn set_state(&self, state: RunState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Says in the log why the device stops. A guest that does it over and over is heard of only
    /// the first times.
    pub(crate) fn complain(&self, reason: &dyn fmt::Display) {
        if self.log_limit.allows() {
            let device = self.device_type;
            warn!("virtio {device} stopped until the guest resets it: {reason}");
        }
    }

    /// The worker has stopped the device, and holds none of its queues.
    pub(crate) fn stopped(&self) {
        self.set_state(RunState::Stopped);
    }

    /// The device failed. The driver hears of it, unless a reset is on its way already.
    pub(crate) fn broken(&self) {
        let from_started = self.state.compare_exchange(
            RunState::Started as u8,
            RunState::Broken as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if from_started.is_ok() {
            // A full counter means that an interrupt is pending already.
            let _ = self.config.interrupt();
        }
    }
}
