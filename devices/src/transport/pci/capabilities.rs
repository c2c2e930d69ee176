//! What a virtio function says of itself in PCI configuration space (virtio 1.3, sections 4.1.2 and
//! 4.1.4).

use std::ops::Range;

use super::layout::{self, BAR_SIZE, NOTIFY_MULTIPLIER};
use crate::device::DeviceKind;
use crate::pci::{ConfigHeader, Identity, NoRoom};

/// Capability ids (PCI Code and ID Assignment 1.11, section 2): vendor-specific, MSI-X.
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;

/// Types of virtio structures (section 4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// MSI-X message control: the guest may set enable and function mask.
const CONTROL_WRITABLE: [u8; 2] = [0, 0xc0];

/// Bytes of `struct virtio_pci_cap`.
const CAP_LEN: u8 = 16;

/// The writable fields of the PCI_CFG capability's body (see [`structure`]): bar, offset, length,
/// and the window.
const WINDOW_WRITABLE: [u8; 18] = [
    0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

/// Offsets in the PCI_CFG capability.
const WINDOW_BAR: usize = 4;
const WINDOW_OFFSET: usize = 8;
const WINDOW_LENGTH: usize = 12;
const WINDOW_DATA: usize = 16;

/// Where the capabilities that take part in accesses are in configuration space.
pub(super) struct Capabilities {
    window: usize,
    msix: usize,
}

/// An access to the BAR through configuration space (section 4.1.4.9).
pub(super) struct WindowAccess {
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// Ids and class of a kind of device.
pub(super) fn identity(kind: &DeviceKind) -> Identity {
    Identity {
        // Section 4.1.2: Red Hat's vendor id, modern device ids; revision 1 and a subsystem id from
        // 0x40 on keep legacy drivers away.
        vendor: 0x1af4,
        device: 0x1040 + kind.id,
        revision: 1,
        // Fits no class: drivers go by the ids.
        class: 0xff00,
        subsystem_vendor: 0x1af4,
        subsystem: 0x0040 + kind.id,
    }
}

impl Capabilities {
    /// Adds all capabilities, in the order in which Linux looks for them: it walks the list from
    /// the start for each.
    pub(super) fn add(
        header: &mut ConfigHeader,
        vectors: u16,
        config_length: usize,
    ) -> Result<Self, NoRoom> {
        add_structure(header, COMMON_CFG, layout::COMMON)?;
        add_structure(header, ISR_CFG, layout::ISR)?;
        let mut notify = structure(CAP_LEN + 4, NOTIFY_CFG, layout::NOTIFY).to_vec();
        notify.extend(NOTIFY_MULTIPLIER.to_le_bytes());
        header.add_capability(VENDOR_SPECIFIC, &notify, &[])?;
        if config_length > 0 {
            let end = layout::DEVICE.start + config_length as u64;
            let used = layout::DEVICE.start..end.min(layout::DEVICE.end);
            add_structure(header, DEVICE_CFG, used)?;
        }
        let mut window = structure(CAP_LEN + 4, PCI_CFG, 0..0).to_vec();
        window.extend([0; 4]);
        let window = header.add_capability(VENDOR_SPECIFIC, &window, &WINDOW_WRITABLE)?;

        // Table and pending bits are in BAR 0, which is what the low three bits say.
        let mut msix = vectors.saturating_sub(1).to_le_bytes().to_vec();
        msix.extend((layout::TABLE.start as u32).to_le_bytes());
        msix.extend((layout::PENDING.start as u32).to_le_bytes());
        let msix = header.add_capability(MSIX, &msix, &CONTROL_WRITABLE)?;
        Ok(Self { window, msix })
    }

    /// MSI-X message control as the guest has set it.
    pub(super) fn msix_control(&self, header: &ConfigHeader) -> u16 {
        let mut control = [0; 2];
        header.read(self.msix + 2, &mut control);
        u16::from_le_bytes(control)
    }

    /// The access that touching configuration space at `offset` stands for: one to the window, if
    /// the fields before it describe a range of the BAR.
    pub(super) fn window_access(
        &self,
        header: &ConfigHeader,
        offset: usize,
    ) -> Option<WindowAccess> {
        let data = self.window + WINDOW_DATA;
        if !(data..data + 4).contains(&offset) {
            return None;
        }
        let offset = u64::from(read32(header, self.window + WINDOW_OFFSET));
        let length = read32(header, self.window + WINDOW_LENGTH);
        let bar = read32(header, self.window + WINDOW_BAR) as u8;
        let sane = bar == 0
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(u64::from(length))
            && offset + u64::from(length) <= BAR_SIZE;
        sane.then_some(WindowAccess {
            offset,
            length: length as usize,
        })
    }

    /// Whether a read in the window is an access to the BAR.
    pub(super) fn is_window_open(&self, header: &ConfigHeader) -> bool {
        self.window_access(header, self.window + WINDOW_DATA)
            .is_some()
    }

    /// The bytes in the window.
    pub(super) fn window(&self, header: &ConfigHeader) -> [u8; 4] {
        read32(header, self.window + WINDOW_DATA).to_le_bytes()
    }

    /// Shows bytes in the window.
    pub(super) fn set_window(&self, header: &mut ConfigHeader, bytes: [u8; 4]) {
        header.put(self.window + WINDOW_DATA, &bytes);
    }
}

fn add_structure(header: &mut ConfigHeader, kind: u8, range: Range<u64>) -> Result<usize, NoRoom> {
    header.add_capability(VENDOR_SPECIFIC, &structure(CAP_LEN, kind, range), &[])
}

/// `struct virtio_pci_cap` for BAR 0, without the id and "next" of every capability.
fn structure(length: u8, kind: u8, range: Range<u64>) -> [u8; 14] {
    let [a, b, c, d] = (range.start as u32).to_le_bytes();
    let [e, f, g, h] = ((range.end - range.start) as u32).to_le_bytes();
    [length, kind, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

fn read32(header: &ConfigHeader, offset: usize) -> u32 {
    let mut bytes = [0; 4];
    header.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}
