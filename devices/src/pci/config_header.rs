//! The 256 bytes of a type 0 configuration space (PCI Local Bus 3.0, section 6.1).

/// Size of the configuration space of a conventional function, bytes.
const SIZE: usize = 256;

/// Offsets of the header's registers (section 6.1).
mod register {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const CLASS: usize = 0x0a;
    pub(super) const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub(super) const SUBSYSTEM: usize = 0x2e;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
}

/// Where the first capability may be: after the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Command register, section 6.2.2: memory space, bus master, and interrupt disable.
const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;

/// Status register, section 6.2.3: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Enhanced Allocation (PCI Express 5.0, section 7.8.5): one entry of three double words for what
/// would be BAR 0, with memory that is not prefetchable and no alternative, enabled, not writable.
const ENHANCED_ALLOCATION: u8 = 0x14;
const ONE_ENTRY: u16 = 1;
const ENTRY: u32 = 1 << 31 | 0xff << 16 | 2;

/// What a function says it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision id.
    pub revision: u8,
    /// Base class (high byte) and sub-class; the programming interface is 0.
    pub class: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// The capabilities of a function do not fit into its configuration space.
#[derive(Debug, thiserror::Error)]
#[error("the capability list of a PCI function has no room for one more")]
pub struct NoRoom;

/// The configuration space of one function, with the bits that a guest may change.
///
/// There are no BARs that a guest could move, but the capability Enhanced Allocation, which says where
/// the function's memory is. Linux knows it since 4.4, and so leaves a function where it is that
/// it finds while it runs; to a BAR it would give another address.
#[derive(Clone, Debug)]
pub struct ConfigHeader {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// Where the "next" pointer of the last capability is, and where the next capability goes.
    last_pointer: usize,
    free: usize,
}

impl ConfigHeader {
    /// A header without memory, interrupt pin and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut header = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            last_pointer: register::CAPABILITIES,
            free: FIRST_CAPABILITY,
        };
        header.put(register::VENDOR, &identity.vendor.to_le_bytes());
        header.put(register::DEVICE, &identity.device.to_le_bytes());
        header.put(register::REVISION, &[identity.revision]);
        header.put(register::CLASS, &identity.class.to_le_bytes());
        header.put(
            register::SUBSYSTEM_VENDOR,
            &identity.subsystem_vendor.to_le_bytes(),
        );
        header.put(register::SUBSYSTEM, &identity.subsystem.to_le_bytes());
        header.allow(register::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        header.allow(register::INTERRUPT_LINE, &[0xff]);
        header
    }

    /// Gives the function `size` bytes of memory from guest address `start` on, in the place of BAR
    /// 0. Both are multiples of 4.
    ///
    /// # Errors
    /// When there is no room.
    pub fn add_memory(&mut self, start: u32, size: u32) -> Result<(), NoRoom> {
        let mut body = ONE_ENTRY.to_le_bytes().to_vec();
        // The offset of the last double word is what the entry ends with.
        for word in [ENTRY, start, size.saturating_sub(4)] {
            body.extend(word.to_le_bytes());
        }
        self.add_capability(ENHANCED_ALLOCATION, &body, &[])?;
        Ok(())
    }

    /// Appends a capability: `body` is what follows its id and its "next" pointer, `writable` the
    /// bits of the body that the guest may change (the rest of it: none). Returns the offset of the
    /// capability.
    ///
    /// # Errors
    /// When there is no room.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<usize, NoRoom> {
        let offset = self.free;
        let end = offset + 2 + body.len();
        if end > SIZE {
            return Err(NoRoom);
        }
        self.put(self.last_pointer, &[offset as u8]);
        self.put(offset, &[id, 0]);
        self.put(offset + 2, body);
        self.allow(offset + 2, writable);
        self.put(register::STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.last_pointer = offset + 1;
        // Capabilities are aligned to double words (section 6.7).
        self.free = end.next_multiple_of(4);
        Ok(offset)
    }

    /// Fills `data` from `offset`; all ones past the end.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            let position = offset.checked_add(i);
            *byte = position
                .and_then(|p| self.bytes.get(p))
                .copied()
                .unwrap_or(0xff);
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Changes the writable bits at `offset`; past the end nothing happens.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let places = self
            .bytes
            .iter_mut()
            .zip(&self.writable)
            .skip(offset)
            .zip(data);
        for ((byte, writable), new) in places {
            *byte = (*byte & !writable) | (new & writable);
        }
    }

    /// Sets bytes regardless of what the guest may change.
    pub fn put(&mut self, offset: usize, data: &[u8]) {
        copy(&mut self.bytes, offset, data);
    }

    /// Whether memory decoding is on.
    pub fn decodes_memory(&self) -> bool {
        self.bytes
            .get(register::COMMAND)
            .is_some_and(|command| command & COMMAND_MEMORY != 0)
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        copy(&mut self.writable, offset, mask);
    }
}

fn copy(to: &mut [u8], offset: usize, from: &[u8]) {
    for (to, from) in to.iter_mut().skip(offset).zip(from) {
        *to = *from;
    }
}
