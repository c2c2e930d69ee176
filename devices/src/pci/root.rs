//! The root of the PCI bus: finds the function that an access of the guest is for.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::{ConfigHeader, ConfigMemory, Identity, PciFunction};

/// Slots on the bus; slot 0 is the host bridge.
const SLOTS: usize = 32;

/// Bytes of configuration space that a function has in the ECAM window (PCI Firmware 3.2, section 4.1.1).
const FUNCTION_SIZE: usize = 4096;
/// What is read where there is no function.
const ABSENT: [u8; FUNCTION_SIZE] = [0xff; FUNCTION_SIZE];

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
/// An access goes to its function under that function's lock, so that vCPUs do not wait for each
/// other's devices; the lock of all slots is only read, but when a function comes or goes. A slot
/// without a function costs the guest one read when it looks for devices.
pub struct PciRoot {
    /// One for each slot number.
    slots: RwLock<Vec<Option<Slot>>>,
    /// Where the guest reads configuration space by itself. Locked last.
    shown: Mutex<Option<Box<dyn ConfigMemory>>>,
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
        let mut slots = vec![Some(Slot::new(bridge))];
        slots.resize_with(SLOTS, || None);
        Self {
            slots: RwLock::new(slots),
            shown: Mutex::default(),
        }
    }

    /// Bytes of the ECAM window up to the last function of today.
    pub fn used_size(&self) -> u64 {
        let last = self.slots().iter().rposition(Option::is_some);
        offset(last.map_or(0, |slot| slot + 1))
    }

    /// Has the guest read configuration space in this memory, of [`Self::used_size`] and zeroed, for as long as no read does
    /// anything. A driver reads hundreds of registers, which otherwise are an exit each. Before the guest runs.
    ///
    /// Functions 1 to 7 are zero there, in place of all ones: by its header each device has function 0 alone.
    pub fn show_in(&self, memory: Box<dyn ConfigMemory>) {
        let slots = self.slots();
        *lock(&self.shown) = Some(memory);
        for (slot, place) in slots.iter().enumerate() {
            self.show(slot, Some(&ABSENT));
            if let Some(place) = place {
                self.show(slot, lock(&place.function).config());
            }
        }
    }

    /// The first free slot (1 to 31), which stays free until this thread fills it: only one thread
    /// adds functions.
    ///
    /// # Errors
    /// When there are 31 functions.
    pub fn free_slot(&self) -> Result<u8, SlotsTaken> {
        let free = self.slots().iter().position(Option::is_none);
        free.map(|slot| slot as u8).ok_or(SlotsTaken)
    }

    /// Whether there is more than the host bridge.
    pub fn has_functions(&self) -> bool {
        self.slots().iter().skip(1).any(Option::is_some)
    }

    /// Puts a function into the first free slot, and returns the slot's number. The guest may be
    /// running; it finds the function when it looks for it.
    ///
    /// # Errors
    /// As [`Self::free_slot`].
    pub fn add(&self, function: Box<dyn PciFunction>) -> Result<u8, SlotsTaken> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let mut places = slots.iter_mut().zip(0..);
        let (place, slot) = places
            .find(|(place, _)| place.is_none())
            .ok_or(SlotsTaken)?;
        self.show(usize::from(slot), function.config());
        *place = Some(Slot::new(function));
        Ok(slot)
    }

    /// Takes a function off the bus, whatever the guest does with it; nothing happens if there is
    /// none. To the guest the slot is empty when this returns.
    pub fn remove(&self, slot: u8) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = usize::from(slot);
        let taken = slots.get_mut(slot).and_then(Option::take);
        if taken.is_some() {
            self.show(slot, Some(&ABSENT));
        }
        drop(slots);
        if let Some(taken) = taken {
            lock(&taken.function).removed();
        }
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
        let (slots, length) = (self.slots(), data.len());
        match find_bar(&slots, address, length) {
            Some((mut function, offset)) => function.bar_read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write to guest address `address`; nothing happens if no BAR is there.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((mut function, offset)) = find_bar(&self.slots(), address, data.len()) {
            function.bar_write(offset, data);
        }
    }

    fn config_read(&self, target: Option<ConfigTarget>, data: &mut [u8]) {
        let (slots, length) = (self.slots(), data.len());
        match find_function(&slots, target, length) {
            Some((mut function, register)) => function.config_read(register, data),
            None => data.fill(0xff),
        }
    }

    fn config_write(&self, target: Option<ConfigTarget>, data: &[u8]) {
        let Some(target) = target else {
            return;
        };
        let slot = target.slot;
        let slots = self.slots();
        if let Some((mut function, register)) = find_function(&slots, Some(target), data.len()) {
            function.config_write(register, data);
            self.show(slot, function.config());
        }
    }

    /// Shows the guest what it reads in a slot, unless it has to ask.
    fn show(&self, slot: usize, config: Option<&[u8]>) {
        let mut shown = lock(&self.shown);
        let Some(memory) = shown.as_ref() else {
            return;
        };
        match config {
            Some(bytes) => memory.show(offset(slot), bytes),
            None => {
                memory.give_up();
                *shown = None;
            }
        }
    }

    /// Held through an access, so that a function that was removed is not in use any more.
    fn slots(&self) -> RwLockReadGuard<'_, Vec<Option<Slot>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The function whose BAR holds all `length` bytes at `address`, and their offset in it.
fn find_bar(slots: &[Option<Slot>], address: u64, length: usize) -> Option<(Function<'_>, u64)> {
    let end = address.checked_add(length as u64)?;
    let (slot, start) = slots.iter().flatten().find_map(|slot| {
        let bar = slot.bar.as_ref()?;
        (bar.contains(&address) && end <= bar.end).then_some((slot, bar.start))
    })?;
    let function = lock(&slot.function);
    function
        .decodes_memory()
        .then_some((function, address - start))
}

/// The function that a configuration access of a sane width is for.
fn find_function(
    slots: &[Option<Slot>],
    target: Option<ConfigTarget>,
    length: usize,
) -> Option<(Function<'_>, usize)> {
    let ConfigTarget { slot, register } = target?;
    if !matches!(length, 1 | 2 | 4) || register % 4 + length > 4 {
        return None;
    }
    let slot = slots.get(slot)?.as_ref()?;
    Some((lock(&slot.function), register))
}

/// Where a slot's function 0 is in the ECAM window: bits 15 to 19 are the slot.
fn offset(slot: usize) -> u64 {
    (slot as u64) << 15
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

    fn config(&self) -> Option<&[u8]> {
        Some(self.0.bytes())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Register state is whole after any single access, and a panic is a bug elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "root_test.rs"]
mod tests;
