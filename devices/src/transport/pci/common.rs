//! The common configuration structure of virtio over PCI (virtio 1.3, section 4.1.4.3).

use crate::transport::{Area, QueueRegisters, StatusChange, Transport};

/// Offsets of the fields.
mod field {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const DEVICE_STATUS: u64 = 0x14;
    pub(super) const CONFIG_GENERATION: u64 = 0x15;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
    pub(super) const END: u64 = 0x38;
}

/// "No vector" (section 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The MSI-X vectors that the driver has chosen.
pub(super) struct Vectors {
    pub(super) config: u16,
    pub(super) queues: Vec<u16>,
}

/// What a write asks of the function, beyond a change of [`Transport`]'s registers.
pub(super) enum Request {
    Status(StatusChange),
    ConfigVector(u16),
    /// For the selected queue.
    QueueVector(u16),
}

impl Vectors {
    /// None yet, for so many queues.
    pub(super) fn new(queues: usize) -> Self {
        Self {
            config: NO_VECTOR,
            queues: vec![NO_VECTOR; queues],
        }
    }

    /// The vector of queue `index`.
    pub(super) fn queue(&self, index: u16) -> u16 {
        let vector = self.queues.get(usize::from(index));
        vector.copied().unwrap_or(NO_VECTOR)
    }
}

/// A read of one field. The driver reads a field with its own width, those of 64 bits in
/// halves too (section 4.1.3.1); anything else reads as zero.
pub(super) fn read(core: &mut Transport, vectors: &Vectors, offset: u64, data: &mut [u8]) {
    let value = match data.len() {
        1 => read8(core, offset).into(),
        2 => read16(core, vectors, offset).into(),
        4 => read32(core, offset).into(),
        8 => read64(core, offset),
        _ => 0,
    };
    for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
}

/// A write of one field, with the same widths; anything else is ignored.
pub(super) fn write(core: &mut Transport, offset: u64, data: &[u8]) -> Option<Request> {
    match *data {
        [value] => return write8(core, offset, value),
        [a, b] => return write16(core, offset, u16::from_le_bytes([a, b])),
        [a, b, c, d] => write32(core, offset, u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => {
            write64(core, offset, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        }
        _ => {}
    }
    None
}

fn read8(core: &mut Transport, offset: u64) -> u8 {
    match offset {
        field::DEVICE_STATUS => core.status(),
        field::CONFIG_GENERATION => core.config().generation(),
        _ => 0,
    }
}

fn read16(core: &Transport, vectors: &Vectors, offset: u64) -> u16 {
    let queues = core.queues();
    match offset {
        field::CONFIG_MSIX_VECTOR => vectors.config,
        field::NUM_QUEUES => queues.count(),
        field::QUEUE_SELECT => queues.selected(),
        field::QUEUE_SIZE => queues.size(),
        field::QUEUE_MSIX_VECTOR => vectors.queue(queues.selected()),
        field::QUEUE_ENABLE => queues.enabled().into(),
        // The number of the queue: each has an address of its own.
        field::QUEUE_NOTIFY_OFF if queues.size() > 0 => queues.selected(),
        _ => 0,
    }
}

fn read32(core: &Transport, offset: u64) -> u32 {
    match offset {
        field::DEVICE_FEATURE_SELECT => core.device_feature_select(),
        field::DEVICE_FEATURE => core.device_features(),
        field::DRIVER_FEATURE_SELECT => core.driver_feature_select(),
        field::DRIVER_FEATURE => core.driver_features(),
        _ => match area(offset) {
            Some((area, Half::Low)) => core.queues().address(area) as u32,
            Some((area, Half::High)) => (core.queues().address(area) >> 32) as u32,
            None => 0,
        },
    }
}

fn read64(core: &Transport, offset: u64) -> u64 {
    match area(offset) {
        Some((area, Half::Low)) => core.queues().address(area),
        _ => 0,
    }
}

fn write8(core: &mut Transport, offset: u64, value: u8) -> Option<Request> {
    (offset == field::DEVICE_STATUS).then(|| Request::Status(core.write_status(value)))
}

fn write16(core: &mut Transport, offset: u64, value: u16) -> Option<Request> {
    match offset {
        field::CONFIG_MSIX_VECTOR => return Some(Request::ConfigVector(value)),
        field::QUEUE_MSIX_VECTOR => return Some(Request::QueueVector(value)),
        field::QUEUE_SELECT => core.select_queue(value),
        field::QUEUE_SIZE => set_up_queue(core, |queue| queue.set_size(value)),
        field::QUEUE_ENABLE if value == 1 => set_up_queue(core, QueueRegisters::enable),
        _ => {}
    }
    None
}

fn write32(core: &mut Transport, offset: u64, value: u32) {
    match offset {
        field::DEVICE_FEATURE_SELECT => core.select_device_features(value),
        field::DRIVER_FEATURE_SELECT => core.select_driver_features(value),
        field::DRIVER_FEATURE => core.write_driver_features(value),
        _ => {
            let (area, low, high) = match area(offset) {
                Some((area, Half::Low)) => (area, Some(value), None),
                Some((area, Half::High)) => (area, None, Some(value)),
                None => return,
            };
            set_up_queue(core, |queue| queue.set_address(area, low, high));
        }
    }
}

fn write64(core: &mut Transport, offset: u64, value: u64) {
    if let Some((area, Half::Low)) = area(offset) {
        let (low, high) = (value as u32, (value >> 32) as u32);
        set_up_queue(core, |queue| {
            queue.set_address(area, Some(low), Some(high));
        });
    }
}

fn set_up_queue(core: &mut Transport, write: impl FnOnce(&mut QueueRegisters)) {
    if let Some(queues) = core.queue_setup() {
        write(queues);
    }
}

enum Half {
    Low,
    High,
}

/// The address field that starts, or has its upper half, at `offset`.
fn area(offset: u64) -> Option<(Area, Half)> {
    let area = match offset {
        field::QUEUE_DESC..field::QUEUE_DRIVER => Area::Descriptors,
        field::QUEUE_DRIVER..field::QUEUE_DEVICE => Area::Driver,
        field::QUEUE_DEVICE..field::END => Area::Device,
        _ => return None,
    };
    match offset % 8 {
        0 => Some((area, Half::Low)),
        4 => Some((area, Half::High)),
        _ => None,
    }
}
