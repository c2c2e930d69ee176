//! The common configuration structure of virtio over PCI (virtio 1.3, section 4.1.4.3).

use super::VirtioPci;
use crate::transport::{Area, QueueRegisters};

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

impl VirtioPci {
    /// A read of one field. The driver reads a field with its own width, those of 64 bits in
    /// halves too (section 4.1.3.1); anything else reads as zero.
    pub(super) fn common_read(&mut self, offset: u64, data: &mut [u8]) {
        match data.len() {
            1 => copy(data, &self.read8(offset).to_le_bytes()),
            2 => copy(data, &self.read16(offset).to_le_bytes()),
            4 => copy(data, &self.read32(offset).to_le_bytes()),
            8 => copy(data, &self.read64(offset).to_le_bytes()),
            _ => data.fill(0),
        }
    }

    /// A write of one field, with the same widths; anything else is ignored.
    pub(super) fn common_write(&mut self, offset: u64, data: &[u8]) {
        match *data {
            [value] => self.write8(offset, value),
            [a, b] => self.write16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write32(offset, u32::from_le_bytes([a, b, c, d])),
            _ => {
                if let Ok(bytes) = <[u8; 8]>::try_from(data) {
                    self.write64(offset, u64::from_le_bytes(bytes));
                }
            }
        }
    }

    fn read8(&mut self, offset: u64) -> u8 {
        match offset {
            field::DEVICE_STATUS => self.core.status(),
            field::CONFIG_GENERATION => self.core.config().generation(),
            _ => 0,
        }
    }

    fn read16(&self, offset: u64) -> u16 {
        let queues = self.core.queues();
        match offset {
            field::CONFIG_MSIX_VECTOR => self.registers.config_vector,
            field::NUM_QUEUES => queues.count(),
            field::QUEUE_SELECT => queues.selected(),
            field::QUEUE_SIZE => queues.size(),
            field::QUEUE_MSIX_VECTOR => self.registers.queue_vector(queues.selected()),
            field::QUEUE_ENABLE => queues.enabled().into(),
            // The number of the queue: each has an address of its own.
            field::QUEUE_NOTIFY_OFF if queues.size() > 0 => queues.selected(),
            _ => 0,
        }
    }

    fn read32(&self, offset: u64) -> u32 {
        match offset {
            field::DEVICE_FEATURE_SELECT => self.core.device_feature_select(),
            field::DEVICE_FEATURE => self.core.device_features(),
            field::DRIVER_FEATURE_SELECT => self.core.driver_feature_select(),
            field::DRIVER_FEATURE => self.core.driver_features(),
            _ => match area(offset) {
                Some((area, Half::Low)) => self.core.queues().address(area) as u32,
                Some((area, Half::High)) => (self.core.queues().address(area) >> 32) as u32,
                None => 0,
            },
        }
    }

    fn read64(&self, offset: u64) -> u64 {
        match area(offset) {
            Some((area, Half::Low)) => self.core.queues().address(area),
            _ => 0,
        }
    }

    fn write8(&mut self, offset: u64, value: u8) {
        if offset == field::DEVICE_STATUS {
            let change = self.core.write_status(value);
            self.status_changed(change);
        }
    }

    fn write16(&mut self, offset: u64, value: u16) {
        match offset {
            field::CONFIG_MSIX_VECTOR => self.set_config_vector(value),
            field::QUEUE_SELECT => self.core.select_queue(value),
            field::QUEUE_SIZE => self.set_up_queue(|queue| queue.set_size(value)),
            field::QUEUE_MSIX_VECTOR => self.set_queue_vector(value),
            field::QUEUE_ENABLE if value == 1 => self.set_up_queue(QueueRegisters::enable),
            _ => {}
        }
    }

    fn write32(&mut self, offset: u64, value: u32) {
        match offset {
            field::DEVICE_FEATURE_SELECT => self.core.select_device_features(value),
            field::DRIVER_FEATURE_SELECT => self.core.select_driver_features(value),
            field::DRIVER_FEATURE => self.core.write_driver_features(value),
            _ => match area(offset) {
                Some((area, Half::Low)) => {
                    self.set_up_queue(|queue| queue.set_address(area, Some(value), None));
                }
                Some((area, Half::High)) => {
                    self.set_up_queue(|queue| queue.set_address(area, None, Some(value)));
                }
                None => {}
            },
        }
    }

    fn write64(&mut self, offset: u64, value: u64) {
        if let Some((area, Half::Low)) = area(offset) {
            let (low, high) = (value as u32, (value >> 32) as u32);
            self.set_up_queue(|queue| queue.set_address(area, Some(low), Some(high)));
        }
    }

    fn set_up_queue(&mut self, write: impl FnOnce(&mut QueueRegisters)) {
        if let Some(queues) = self.core.queue_setup() {
            write(queues);
        }
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

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
