//! The root of the PCI bus: finds the function that an access of the guest is for.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ConfigHeader, Identity, PciFunction};

/// Slots on the bus; slot 0 is the host bridge.
const SLOTS: usize = 32;

/// Host bridge: Red Hat's generic PCIe host bridge, for which Linux has no driver and no quirk.
const HOST_BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x0600,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Bus 0 with its host bridge and up to 31 functions, one a slot.
///
/// Its configuration space is in memory alone (ECAM): by the ports 0xcf8 and 0xcfc each access
/// would be two exits instead of one.
///
/// An access goes to its function under that function's lock only, so that vCPUs do not wait for
/// each other's devices. A slot without a function costs the guest one read when it looks for
/// devices.
pub struct PciRoot {
    slots: Vec<Slot>,
}

struct Slot {
    bar: Option<Range<u64>>,
    function: Mutex<Box<dyn PciFunction>>,
}

/// All slots of the bus have a function.
#[derive(Debug, thiserror::Error)]
#[error("the PCI bus has no free slot: a VM has at most {} devices", SLOTS - 1)]
pub struct SlotsTaken;

/// One configuration access: the slot, and where in its configuration space.
struct ConfigTarget {
    slot: usize,
    register: usize,
}

impl Default for PciRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl PciRoot {
    /// A bus with the host bridge only.
    pub fn new() -> Self {
        let bridge = Box::new(HostBridge(ConfigHeader::new(HOST_BRIDGE)));
        Self {
            slots: vec![Slot::new(bridge)],
        }
    }

    /// Puts a function into the next free slot, and returns the slot's number (1 to 31).
    ///
    /// # Errors
    /// When there are 31 functions.
    pub fn add(&mut self, function: Box<dyn PciFunction>) -> Result<u8, SlotsTaken> {
        let slot = self.slots.len();
        if slot >= SLOTS {
            return Err(SlotsTaken);
        }
        self.slots.push(Slot::new(function));
        Ok(slot as u8)
    }

    /// A read from the ECAM window (PCI Firmware 3.2, section 4.1.1), `offset` bytes into it. Any
    /// vCPU thread, as all that follow.
    pub fn ecam_read(&self, offset: u64, data: &mut [u8]) {
        self.config_read(ConfigTarget::from_ecam(offset), data);
    }

    /// A write to the ECAM window.
    pub fn ecam_write(&self, offset: u64, data: &[u8]) {
        self.config_write(ConfigTarget::from_ecam(offset), data);
    }

    /// A read of guest address `address`; all ones if no BAR is there.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.find_bar(address, data.len()) {
            Some((mut function, offset)) => function.bar_read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write to guest address `address`; nothing happens if no BAR is there.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((mut function, offset)) = self.find_bar(address, data.len()) {
            function.bar_write(offset, data);
        }
    }

    /// The function whose BAR holds all `length` bytes at `address`, and their offset in it.
    fn find_bar(&self, address: u64, length: usize) -> Option<(Function<'_>, u64)> {
        let end = address.checked_add(length as u64)?;
        let (slot, start) = self.slots.iter().find_map(|slot| {
            let bar = slot.bar.as_ref()?;
            (bar.contains(&address) && end <= bar.end).then_some((slot, bar.start))
        })?;
        let function = lock(&slot.function);
        function
            .decodes_memory()
            .then_some((function, address - start))
    }

    fn config_read(&self, target: Option<ConfigTarget>, data: &mut [u8]) {
        match self.find_function(target, data.len()) {
            Some((mut function, register)) => function.config_read(register, data),
            None => data.fill(0xff),
        }
    }

    fn config_write(&self, target: Option<ConfigTarget>, data: &[u8]) {
        if let Some((mut function, register)) = self.find_function(target, data.len()) {
            function.config_write(register, data);
        }
    }

    /// The function that a configuration access of a sane width is for.
    fn find_function(
        &self,
        target: Option<ConfigTarget>,
        length: usize,
    ) -> Option<(Function<'_>, usize)> {
        let ConfigTarget { slot, register } = target?;
        if !matches!(length, 1 | 2 | 4) || register % 4 + length > 4 {
            return None;
        }
        Some((lock(&self.slots.get(slot)?.function), register))
    }
}

type Function<'a> = MutexGuard<'a, Box<dyn PciFunction>>;

impl Slot {
    fn new(function: Box<dyn PciFunction>) -> Self {
        Self {
            bar: function.bar(),
            function: Mutex::new(function),
        }
    }
}

impl ConfigTarget {
    /// Bits 12 to 14: function; 15 to 19: slot; 20 to 27: bus.
    fn from_ecam(offset: u64) -> Option<Self> {
        let function = usize::try_from(offset >> 12).ok()?;
        Self::new(function, (offset & 0xfff) as usize)
    }

    /// `function`: 3 bits of function, which must be 0 here, then the slot, then the bus.
    fn new(function: usize, register: usize) -> Option<Self> {
        function.is_multiple_of(8).then_some(Self {
            slot: function / 8,
            register,
        })
    }
}

/// The function at slot 0.
struct HostBridge(ConfigHeader);

impl PciFunction for HostBridge {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.0.write(offset, data);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Register state is whole after any single access, and a panic is a bug elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "root_test.rs"]
mod tests;
