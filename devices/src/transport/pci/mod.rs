//! Virtio over PCI (virtio 1.3, section 4.1): modern only, MSI-X only.
//!
//! All of a function's structures are in BAR 0:
//! ```text
//! 0x0000 common configuration      0x1000 MSI-X table
//! 0x0100 ISR status                0x2000 MSI-X pending bits
//! 0x0200 device configuration      0x3000 notification, 4 bytes a queue
//! ```

mod capabilities;
mod common;
mod layout;
mod msix;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::kick::Kick;
use super::{QueueEvents, QueueSizeError, StatusChange, Transport};
use crate::Memory;
use crate::event_loop::DeviceHandle;
use crate::fabric::{Doorbell, Fabric};
use crate::log_limit::LogLimit;
use crate::pci::{ConfigHeader, NoRoom, PciFunction};
use capabilities::Capabilities;
use common::{NO_VECTOR, Request, Vectors};
use msix::Msix;

/// As many vectors as the table has room for; one is for configuration changes.
const MAX_QUEUES: u16 = 255;

/// A virtio device as a PCI function.
///
/// Its memory does not move (see [`ConfigHeader`]). INTx is not offered: a driver needs MSI-X, and the
/// ISR status is always 0.
pub struct VirtioPci {
    core: Transport,
    msix: Msix,
    vectors: Vectors,
    /// Queues in use, from DRIVER_OK to reset.
    connected: Vec<Connected>,
    header: ConfigHeader,
    capabilities: Capabilities,
    fabric: Arc<dyn Fabric>,
    bar: u64,
    config_call: Arc<EventFd>,
    limit: LogLimit,
}

struct Connected {
    index: u16,
    kick: Kick,
    call: Arc<EventFd>,
}

/// Why a device cannot be a PCI function.
#[derive(Debug, thiserror::Error)]
pub enum VirtioPciError {
    /// Its queues are impossible.
    #[error(transparent)]
    QueueSize(#[from] QueueSizeError),
    /// It has more queues than the notification area and the MSI-X table have room for.
    #[error("{0} queues are more than the {MAX_QUEUES} that a PCI function has room for")]
    TooManyQueues(u16),
    /// The capability list is full.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A descriptor could not be duplicated.
    #[error("duplicate the eventfd of the configuration interrupt: {0}")]
    EventFd(#[from] io::Error),
}

impl VirtioPci {
    /// Size and alignment of the BAR, bytes.
    pub const BAR_SIZE: u64 = layout::BAR_SIZE;

    /// A function for `device`, whose BAR is at guest address `bar` (a multiple of
    /// [`Self::BAR_SIZE`], in the window of the host bridge).
    ///
    /// # Errors
    /// When the device does not fit into a PCI function, or out of file descriptors.
    pub fn new(
        device: DeviceHandle,
        memory: Arc<Memory>,
        fabric: Arc<dyn Fabric>,
        bar: u32,
    ) -> Result<Self, VirtioPciError> {
        let core = Transport::new(device, memory)?;
        let queues = core.queues().count();
        if queues > MAX_QUEUES {
            return Err(VirtioPciError::TooManyQueues(queues));
        }
        let mut header = ConfigHeader::new(capabilities::identity(core.kind()));
        let vectors = queues + 1;
        let capabilities = Capabilities::add(&mut header, vectors, core.config().len())?;
        // Last: Linux looks for it once, and for the others more often.
        header.add_memory(bar, Self::BAR_SIZE as u32)?;
        Ok(Self {
            msix: Msix::new(Arc::clone(&fabric), vectors),
            vectors: Vectors::new(queues.into()),
            connected: Vec::new(),
            config_call: Arc::new(core.config().call().try_clone()?),
            limit: LogLimit::default(),
            core,
            header,
            capabilities,
            fabric,
            bar: bar.into(),
        })
    }

    fn common_write(&mut self, offset: u64, data: &[u8]) {
        match common::write(&mut self.core, offset, data) {
            Some(Request::Status(change)) => self.status_changed(change),
            Some(Request::ConfigVector(vector)) => self.set_config_vector(vector),
            Some(Request::QueueVector(vector)) => self.set_queue_vector(vector),
            None => {}
        }
    }

    fn status_changed(&mut self, change: StatusChange) {
        match change {
            StatusChange::None => {}
            StatusChange::Ready(mut prepared) => {
                self.connect(std::mem::take(&mut prepared.events));
                self.core.start(prepared);
            }
            StatusChange::Reset => self.disconnect(),
        }
    }

    /// Sets the vector of configuration changes; it reads back as "none" if it cannot be had.
    fn set_config_vector(&mut self, vector: u16) {
        if self.core.is_writable() {
            self.vectors.config = self.reserve(vector);
            self.wire_interrupts();
        }
    }

    /// Sets the vector of the selected queue, in the same way.
    fn set_queue_vector(&mut self, vector: u16) {
        let queue = usize::from(self.core.queues().selected());
        if queue < self.vectors.queues.len() && self.core.is_writable() {
            let vector = self.reserve(vector);
            if let Some(register) = self.vectors.queues.get_mut(queue) {
                *register = vector;
            }
            self.wire_interrupts();
        }
    }

    fn reserve(&mut self, vector: u16) -> u16 {
        if vector != NO_VECTOR && self.msix.reserve(vector) {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// Attaches the eventfds in use to the vectors that the registers say.
    fn wire_interrupts(&mut self) {
        self.msix.detach_all();
        if !self.core.is_live() {
            return;
        }
        for queue in &self.connected {
            let vector = self.vectors.queue(queue.index);
            self.msix.attach(vector, Arc::clone(&queue.call));
        }
        let call = Arc::clone(&self.config_call);
        self.msix.attach(self.vectors.config, call);
    }

    fn connect(&mut self, queues: Vec<QueueEvents>) {
        for QueueEvents { index, kick, call } in queues {
            let (doorbell, device) = (Doorbell::Mmio(self.notify_address(index)), self.core.kind());
            self.connected.push(Connected {
                index,
                kick: Kick::bind(kick, doorbell, &*self.fabric, device, &self.limit),
                call: Arc::new(call),
            });
        }
        self.wire_interrupts();
    }

    fn disconnect(&mut self) {
        self.msix.detach_all();
        self.vectors = Vectors::new(self.vectors.queues.len());
        for queue in std::mem::take(&mut self.connected) {
            queue.kick.unbind(&*self.fabric, &self.limit);
        }
    }

    fn notify_address(&self, index: u16) -> u64 {
        self.bar + layout::NOTIFY.start + u64::from(index) * u64::from(layout::NOTIFY_MULTIPLIER)
    }

    /// A notification that came here and not to the eventfd: through the configuration space, or as
    /// the hypervisor could not bind it.
    fn notify(&self, offset: u64) {
        let mut queues = self.connected.iter();
        if let Some(queue) = queues.find(|q| self.notify_address(q.index) == self.bar + offset) {
            queue.kick.signal();
        }
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        if let Some(access) = self.capabilities.window_access(&self.header, offset) {
            let mut window = [0; 4];
            if let Some(part) = window.get_mut(..access.length) {
                self.bar_read(access.offset, part);
            }
            self.capabilities.set_window(&mut self.header, window);
        }
        self.header.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.header.write(offset, data);
        if let Some(access) = self.capabilities.window_access(&self.header, offset) {
            let window = self.capabilities.window(&self.header);
            if let Some(part) = window.get(..access.length) {
                self.bar_write(access.offset, part);
            }
        }
        let control = self.capabilities.msix_control(&self.header);
        self.msix.set_control(control);
    }

    fn config(&self) -> Option<&[u8]> {
        let asks = self.capabilities.is_window_open(&self.header);
        (!asks).then(|| self.header.bytes())
    }

    fn bar(&self) -> Option<Range<u64>> {
        Some(self.bar..self.bar + Self::BAR_SIZE)
    }

    /// As if the driver had reset it, but for the routes, which the next function gets.
    fn removed(&mut self) {
        let reset = self.core.write_status(0);
        self.status_changed(reset);
        self.msix.release();
    }

    fn decodes_memory(&self) -> bool {
        self.header.decodes_memory()
    }

    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        let within = |region: Range<u64>| (offset - region.start) as usize;
        data.fill(0);
        match offset {
            o if layout::COMMON.contains(&o) => {
                common::read(&mut self.core, &self.vectors, o, data)
            }
            o if layout::DEVICE.contains(&o) => {
                self.core.config().read(within(layout::DEVICE), data);
            }
            o if layout::TABLE.contains(&o) => self.msix.table_read(within(layout::TABLE), data),
            o if layout::PENDING.contains(&o) => {
                self.msix.pending_read(within(layout::PENDING), data);
            }
            _ => {}
        }
    }

    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        let within = |region: Range<u64>| (offset - region.start) as usize;
        match offset {
            o if layout::COMMON.contains(&o) => self.common_write(o, data),
            o if layout::DEVICE.contains(&o) => {
                self.core.write_config(within(layout::DEVICE), data);
            }
            o if layout::TABLE.contains(&o) => self.msix.table_write(within(layout::TABLE), data),
            o if layout::NOTIFY.contains(&o) => self.notify(o),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "pci_fuzz.rs"]
mod fuzz;

#[cfg(test)]
#[path = "pci_test.rs"]
mod tests;
