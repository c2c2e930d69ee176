//! The queue registers of a device (virtio 1.3, sections 2.7 and 4.1.5.1.3).

use std::io;
use std::sync::Arc;

use tracing::debug;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::Memory;
use crate::device::DeviceKind;
use crate::queue::VirtQueue;

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

/// A queue of a size that virtio does not know.
#[derive(Debug, thiserror::Error)]
#[error("virtio {device}: queue {index} has the invalid size {size}")]
pub struct QueueSizeError {
    device: &'static DeviceKind,
    index: usize,
    size: u16,
}

/// Why queues cannot be used as the registers describe them.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActivateError {
    #[error("the rings of queue {0} are not in guest memory")]
    BadRing(u16),
    #[error("make an eventfd: {0}")]
    EventFd(#[from] io::Error),
}

/// The registers of all queues of a device, of which one is selected.
#[derive(Debug)]
pub struct QueueRegisters {
    device: &'static DeviceKind,
    selected: u16,
    /// The crate's queue type is the register file, since it takes only valid values.
    queues: Vec<Queue>,
}

impl QueueRegisters {
    pub(super) fn new(device: &'static DeviceKind, sizes: &[u16]) -> Result<Self, QueueSizeError> {
        let queues = sizes.iter().enumerate().map(|(index, &size)| {
            Queue::new(size).map_err(|_| QueueSizeError {
                device,
                index,
                size,
            })
        });
        Ok(Self {
            device,
            selected: 0,
            queues: queues.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn reset(&mut self) {
        // Named one by one, so that a new register cannot be forgotten here.
        let Self {
            device: _,
            selected,
            queues,
        } = self;
        *selected = 0;
        queues.iter_mut().for_each(QueueT::reset);
    }

    pub(super) fn select(&mut self, index: u16) {
        self.selected = index;
    }

    /// How many queues the device has.
    pub fn count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// Which queue is selected; it may be one that does not exist.
    pub fn selected(&self) -> u16 {
        self.selected
    }

    /// The size of the selected queue: the largest possible until it is set, 0 if there is no such
    /// queue.
    pub fn size(&self) -> u16 {
        self.queue().map_or(0, QueueT::size)
    }

    /// Sets the size of the selected queue; invalid ones are ignored.
    pub fn set_size(&mut self, size: u16) {
        let set = self.queue_mut().map(|q| q.try_set_size(size));
        self.report("size", set);
    }

    /// Whether the selected queue is enabled.
    pub fn enabled(&self) -> bool {
        self.queue().is_some_and(QueueT::ready)
    }

    /// Enables the selected queue; its registers stay as they are from now on. They are checked at
    /// DRIVER_OK.
    pub fn enable(&mut self) {
        if let Some(queue) = self.queue_mut() {
            queue.set_ready(true);
        }
    }

    /// Takes the selected queue back to how it is after a reset.
    pub fn give_up(&mut self) {
        if let Some(queue) = self.queues.get_mut(usize::from(self.selected)) {
            queue.reset();
        }
    }

    /// The address of an area of the selected queue.
    pub fn address(&self, area: Area) -> u64 {
        self.queue().map_or(0, |queue| address(queue, area))
    }

    /// Sets one half or both of the address of an area of the selected queue. An address that is
    /// not aligned as it must be is ignored.
    pub fn set_address(&mut self, area: Area, low: Option<u32>, high: Option<u32>) {
        let set = self.queue_mut().map(|queue| {
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

    /// Makes all queues as the registers describe them; those that are enabled have events.
    pub(super) fn activate(
        &self,
        memory: &Arc<Memory>,
        event_idx: bool,
    ) -> Result<(Vec<VirtQueue>, Vec<QueueEvents>), ActivateError> {
        let mut events = Vec::new();
        let mut queues = Vec::new();
        for (index, registers) in (0..self.count()).zip(&self.queues) {
            let mut ring = ring(registers, memory).ok_or(ActivateError::BadRing(index))?;
            ring.set_event_idx(event_idx);
            let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            let (kick, call) = (event()?, event()?);
            if ring.ready() {
                events.push(QueueEvents {
                    index,
                    kick: kick.try_clone()?,
                    call: call.try_clone()?,
                });
            }
            queues.push(VirtQueue::new(ring, Arc::clone(memory), kick, call));
        }
        Ok((queues, events))
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::from(self.selected))
    }

    /// The selected queue, if its registers may be changed.
    fn queue_mut(&mut self) -> Option<&mut Queue> {
        let queue = self.queues.get_mut(usize::from(self.selected));
        queue.filter(|queue| !queue.ready())
    }

    fn report(&self, what: &str, set: Option<Result<(), virtio_queue::Error>>) {
        if let Some(Err(error)) = set {
            let Self {
                device, selected, ..
            } = self;
            debug!("virtio {device}: {what} of queue {selected} ignored: {error}");
        }
    }
}

fn address(queue: &Queue, area: Area) -> u64 {
    match area {
        Area::Descriptors => queue.desc_table(),
        Area::Driver => queue.avail_ring(),
        Area::Device => queue.used_ring(),
    }
}

/// A ring as its registers describe it; `None` if it is enabled and not in guest memory.
fn ring(registers: &Queue, memory: &Memory) -> Option<Queue> {
    let size = usize::from(registers.size());
    // Section 2.7: sizes of the areas. Queue::is_valid is not used, as it refuses a ring that ends
    // where a memory region does, and does not look at where it starts.
    let areas = [
        (registers.desc_table(), 16 * size),
        (registers.avail_ring(), 6 + 2 * size),
        (registers.used_ring(), 6 + 8 * size),
    ];
    let in_memory = areas
        .iter()
        .all(|&(start, length)| memory.check_range(GuestAddress(start), length));
    if registers.ready() && !in_memory {
        return None;
    }
    Queue::try_from(registers.state()).ok()
}
