//! The kick of a queue in use, bound to the doorbell that the driver rings.

use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

use crate::device::DeviceKind;
use crate::fabric::{Doorbell, Fabric};
use crate::log_limit::LogLimit;

pub(super) struct Kick {
    event: EventFd,
    doorbell: Doorbell,
    bound: bool,
}

impl Kick {
    /// If the hypervisor refuses, notifications come to the transport, which has [`Self::signal`] for them.
    pub(super) fn bind(
        event: EventFd,
        doorbell: Doorbell,
        fabric: &dyn Fabric,
        device: &DeviceKind,
        limit: &LogLimit,
    ) -> Self {
        let bound = fabric.bind_kick(doorbell, &event);
        if let Err(error) = &bound
            && limit.allows()
        {
            warn!("virtio {device}: notifications at {doorbell:x?} will be slow: {error}");
        }
        Self {
            event,
            doorbell,
            bound: bound.is_ok(),
        }
    }

    pub(super) fn unbind(self, fabric: &dyn Fabric, limit: &LogLimit) {
        let Self {
            event,
            doorbell,
            bound,
        } = self;
        if bound
            && let Err(error) = fabric.unbind_kick(doorbell, &event)
            && limit.allows()
        {
            warn!("cannot unbind the notifications at {doorbell:x?}: {error}");
        }
    }

    /// A notification that came to the transport, and not to the eventfd.
    pub(super) fn signal(&self) {
        // A full counter means that a kick is pending already.
        let _ = self.event.write(1);
    }
}
