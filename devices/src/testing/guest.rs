//! A guest for tests: drives a virtio function on a PCI bus the way Linux does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::probe::{Probe, Told};
use super::{DriverQueue, FakeFabric, memory};
use crate::config_space::ConfigSpace;
use crate::event_loop::{EventLoop, add_device};
use crate::fabric::MsiMessage;
use crate::pci::PciRoot;
use crate::transport::pci::VirtioPci;
use crate::transport::status;

pub(crate) const BAR: u64 = 0xe000_0000;

/// The function is in slot 1.
const ECAM: u64 = 1 << 15;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;

/// What drivers do before the features are agreed on.
pub(crate) const HELLO: u8 = status::ACKNOWLEDGE | status::DRIVER;
pub(crate) const AGREED: u8 = HELLO | status::FEATURES_OK;
pub(crate) const RUNNING: u8 = AGREED | status::DRIVER_OK;

/// A machine with one virtio device, and its guest.
pub(crate) struct Guest {
    pub(crate) root: PciRoot,
    pub(crate) fabric: Arc<FakeFabric>,
    pub(crate) event_loop: EventLoop,
    pub(crate) told: Arc<Mutex<Vec<Told>>>,
    pub(crate) config: Arc<ConfigSpace>,
    pub(crate) queues: Vec<DriverQueue>,
    /// Guest addresses of the virtio structures by type, once they are found.
    structures: BTreeMap<u8, u64>,
}

impl Guest {
    pub(crate) fn new(probe: Probe) -> Self {
        let memory = memory(1 << 20);
        let sizes = probe.queue_sizes.iter().zip([0x1_0000, 0x2_0000]);
        let queues = sizes.map(|(&size, base)| DriverQueue::new(&memory, base, size));
        let queues = queues.collect();
        let (told, config) = (Arc::clone(&probe.told), Arc::clone(&probe.config));
        let fabric = Arc::new(FakeFabric::default());
        let mut event_loop = EventLoop::new().unwrap();
        let device = add_device(&mut event_loop, Box::new(probe)).unwrap();
        let function =
            VirtioPci::new(device, memory, Arc::clone(&fabric) as _, BAR as u32).unwrap();
        let root = PciRoot::new();
        assert_eq!(root.add(Box::new(function)).unwrap(), 1);
        Self {
            root,
            fabric,
            event_loop,
            told,
            config,
            queues,
            structures: BTreeMap::new(),
        }
    }

    /// Serves what there is for the device. Returns what it was told.
    pub(crate) fn serve(&mut self) -> Vec<Told> {
        while self.event_loop.turn(0).unwrap() > 0 {}
        std::mem::take(&mut self.told.lock().unwrap())
    }

    pub(crate) fn config_read(&self, offset: u64, width: usize) -> u32 {
        let mut data = [0; 4];
        self.root.ecam_read(ECAM + offset, &mut data[..width]);
        u32::from_le_bytes(data)
    }

    pub(crate) fn config_write(&self, offset: u64, width: usize, value: u32) {
        self.root
            .ecam_write(ECAM + offset, &value.to_le_bytes()[..width]);
    }

    pub(crate) fn read(&self, address: u64, width: usize) -> u64 {
        let mut data = [0; 8];
        self.root.mmio_read(address, &mut data[..width]);
        u64::from_le_bytes(data)
    }

    pub(crate) fn write(&self, address: u64, width: usize, value: u64) {
        // The hypervisor looks for an eventfd first.
        if !self.fabric.guest_writes(address) {
            self.root.mmio_write(address, &value.to_le_bytes()[..width]);
        }
    }

    /// All capabilities: offset and id.
    pub(crate) fn capabilities(&self) -> Vec<(u64, u8)> {
        let mut found = Vec::new();
        let mut offset = u64::from(self.config_read(0x34, 1));
        while offset != 0 {
            let head = self.config_read(offset, 2);
            found.push((offset, head as u8));
            offset = u64::from(head >> 8);
        }
        found
    }

    pub(crate) fn msix(&self) -> u64 {
        let all = self.capabilities();
        all.iter().find(|(_, id)| *id == 0x11).unwrap().0
    }

    /// Enables the function, finds its structures, and masks and enables MSI-X.
    pub(crate) fn enumerate(&mut self) {
        self.config_write(0x04, 2, 0b110);
        for (offset, id) in self.capabilities() {
            if id == 0x09 {
                let kind = self.config_read(offset + 3, 1) as u8;
                let address = BAR + u64::from(self.config_read(offset + 8, 4));
                self.structures.entry(kind).or_insert(address);
            }
        }
        self.config_write(self.msix() + 2, 2, 0xc000);
        self.config_write(self.msix() + 2, 2, 0x8000);
    }

    pub(crate) fn common(&self, offset: u64) -> u64 {
        self.structures[&1] + offset
    }

    pub(crate) fn status(&self) -> u8 {
        self.read(self.common(0x14), 1) as u8
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.write(self.common(0x14), 1, status.into());
    }

    /// Resets, and offers `features` for agreement. Returns the status.
    pub(crate) fn negotiate(&mut self, features: u64) -> u8 {
        self.set_status(0);
        self.serve();
        assert_eq!(self.status(), 0);
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(HELLO);
        for half in 0..2 {
            self.write(self.common(0x08), 4, half);
            self.write(self.common(0x0c), 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.set_status(AGREED);
        self.status()
    }

    pub(crate) fn offered(&self) -> u64 {
        let half = |half| {
            self.write(self.common(0x00), 4, half);
            self.read(self.common(0x04), 4) << (32 * half)
        };
        half(0) | half(1)
    }

    /// Gives vector `index` a message, unmasked.
    pub(crate) fn set_vector(&self, index: u64) {
        let entry = BAR + 0x1000 + 16 * index;
        self.write(entry, 4, 0xfee0_0000);
        self.write(entry + 4, 4, 0);
        self.write(entry + 8, 4, 0x40 + index);
        self.mask_vector(index, false);
    }

    pub(crate) fn mask_vector(&self, index: u64, mask: bool) {
        self.write(BAR + 0x1000 + 16 * index + 12, 4, mask.into());
    }

    pub(crate) fn pending(&self) -> u64 {
        self.read(BAR + 0x2000, 8)
    }

    /// Sets up queue `index` with `vector`. Returns its notification address.
    pub(crate) fn set_queue(&self, index: u16, vector: u16) -> u64 {
        let queue = &self.queues[usize::from(index)];
        self.write(self.common(0x16), 2, index.into());
        self.write(self.common(0x18), 2, queue.size().into());
        for (offset, address) in [
            (0x20, queue.descriptors()),
            (0x28, queue.driver_area()),
            (0x30, queue.device_area()),
        ] {
            self.write(self.common(offset), 4, address & 0xffff_ffff);
            self.write(self.common(offset + 4), 4, address >> 32);
        }
        self.write(self.common(0x1a), 2, vector.into());
        self.write(self.common(0x1c), 2, 1);
        self.notify_address(index)
    }

    pub(crate) fn notify_address(&self, index: u16) -> u64 {
        self.write(self.common(0x16), 2, index.into());
        let offset = self.read(self.common(0x1e), 2);
        self.structures[&2] + 4 * offset
    }

    /// All that a driver does until its device is in use: vector 0 for the configuration, one for
    /// each queue. Returns the notification addresses.
    pub(crate) fn bring_up(&mut self, features: u64) -> Vec<u64> {
        self.enumerate();
        assert_eq!(self.negotiate(features), AGREED);
        let queues = self.queues.len() as u16;
        (0..=u64::from(queues)).for_each(|vector| self.set_vector(vector));
        self.write(self.common(0x10), 2, 0);
        let notify = (0..queues).map(|q| self.set_queue(q, q + 1)).collect();
        self.set_status(RUNNING);
        notify
    }

    pub(crate) fn message(vector: u32) -> MsiMessage {
        MsiMessage {
            address: 0xfee0_0000,
            data: 0x40 + vector,
        }
    }
}
