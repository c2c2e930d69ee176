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
    pub(super) const BAR0: usize = 0x10;
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

/// Low bits of a memory BAR of 64 bits that is not prefetchable (section 6.2.5.1).
const BAR_64BIT: u32 = 0b100;

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

/// BAR 0: a window of memory addresses.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Guest address, a multiple of `size`.
    pub address: u64,
    /// Bytes; a power of two, at least 16.
    pub size: u64,
}

/// The capabilities of a function do not fit into its configuration space.
#[derive(Debug, thiserror::Error)]
#[error("the capability list of a PCI function has no room for one more")]
pub struct NoRoom;

/// The configuration space of one function, with the bits that a guest may change.
///
/// The BAR has a fixed address, chosen by the monitor: the guest can find its size by writing all
/// ones, as always, but any other address that it writes is dropped, and the original one reads
/// back. Linux keeps an address that a firmware has assigned, if it is within a window of the host
/// bridge.
#[derive(Clone, Debug)]
pub struct ConfigHeader {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bar: Option<Bar>,
    /// Which halves of the BAR were written with all ones last, and so show the size.
    probing: [bool; 2],
    /// Where the "next" pointer of the last capability is, and where the next capability goes.
    last_pointer: usize,
    free: usize,
}

impl ConfigHeader {
    /// A header without a BAR, interrupt pin and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut header = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bar: None,
            probing: [false; 2],
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

    /// Gives the function its memory BAR, of 64 bits.
    pub fn set_bar(&mut self, bar: Bar) {
        self.bar = Some(bar);
        self.show_bar();
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
        self.probe_bar(offset, data);
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

    /// The function's BAR.
    pub fn bar(&self) -> Option<Bar> {
        self.bar
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        copy(&mut self.writable, offset, mask);
    }

    /// Sizing (section 6.2.5.1): a half that was written with all ones shows the size.
    fn probe_bar(&mut self, offset: usize, data: &[u8]) {
        let half = match offset {
            register::BAR0 => 0,
            o if o == register::BAR0 + 4 => 1,
            _ => return,
        };
        if let (Ok(data), Some(probing)) = (<[u8; 4]>::try_from(data), self.probing.get_mut(half)) {
            *probing = u32::from_le_bytes(data) == u32::MAX;
            self.show_bar();
        }
    }

    fn show_bar(&mut self) {
        let Some(Bar { address, size }) = self.bar else {
            return;
        };
        let mask = !(size - 1);
        let [low, high] = self
            .probing
            .map(|probing| if probing { mask } else { address });
        self.put(register::BAR0, &(low as u32 | BAR_64BIT).to_le_bytes());
        self.put(register::BAR0 + 4, &((high >> 32) as u32).to_le_bytes());
    }
}

fn copy(to: &mut [u8], offset: usize, from: &[u8]) {
    for (to, from) in to.iter_mut().skip(offset).zip(from) {
        *to = *from;
    }
}
