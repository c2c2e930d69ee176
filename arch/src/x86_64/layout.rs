//! The map of guest-physical memory, I/O ports and interrupts.
//!
//! ```text
//! 0x0000_0500  GDT                      0xc000_0000  PCI window
//! 0x0000_6000  PVH start info           0xe000_0000  PCI configuration space (ECAM)
//! 0x0000_7000  zero page                0xfec0_0000  I/O APIC
//! 0x0000_9000  page tables              0xfee0_0000  local APICs
//! 0x0002_0000  command line             0xfffb_c000  pages that KVM wants on Intel
//! 0x000e_0000  ACPI tables            0x1_0000_0000  RAM beyond 3 GiB
//! 0x0010_0000  kernel ... initrd
//! ```

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryRegion};

use crate::Memory;

/// Least guest memory, in bytes: a kernel and its initrd need some room.
pub const MIN_RAM: u64 = 64 << 20;

/// First address that is not RAM: the hole for devices reaches from here to [`HIGH_RAM_START`].
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Where RAM goes on that has no place below [`LOW_RAM_END`].
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// The global descriptor table (64-bit entry).
pub(crate) const GDT: GuestAddress = GuestAddress(0x500);
/// `hvm_start_info` of the PVH boot protocol; its module list and memory map follow.
pub(crate) const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
/// `boot_params` of the Linux boot protocol, one page.
pub(crate) const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Three pages of page tables: one of each level, for an identity map of the first GiB.
pub(crate) const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
/// Longest kernel command line in bytes: `COMMAND_LINE_SIZE` of x86 Linux (2048) without the final
/// zero.
pub const COMMAND_LINE_MAX: usize = 2047;
/// The kernel command line, zero-terminated.
pub(crate) const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
/// End of conventional memory: here a PC has its extended BIOS data area, up to 640 KiB.
pub(crate) const EBDA_START: u64 = 0x9_fc00;
/// Start of the BIOS area, which is searched for the RSDP at multiples of 16 (ACPI 6.5, 5.2.5.1).
pub(crate) const ACPI_START: GuestAddress = GuestAddress(0xe_0000);
/// Lowest address for a kernel, and end of the ACPI tables' area.
pub(crate) const KERNEL_START: u64 = 0x10_0000;

/// Start of the window for the BARs of PCI devices.
pub const PCI_WINDOW_START: u64 = LOW_RAM_END;
/// Size of that window in bytes.
pub const PCI_WINDOW_SIZE: u64 = ECAM_START - PCI_WINDOW_START;
/// PCI configuration space, memory-mapped: 4 KiB for each function of bus 0.
pub const ECAM_START: u64 = 0xe000_0000;
/// One bus: 32 devices of 8 functions.
pub const ECAM_SIZE: u64 = 1 << 20;

/// Registers of the I/O APIC, where KVM's in-kernel one has them.
pub(crate) const IOAPIC: u64 = 0xfec0_0000;
/// Pins of KVM's I/O APIC; they are the first interrupt routes (GSIs).
pub const IOAPIC_PINS: u32 = 24;
/// Registers of a CPU's own local APIC.
pub(crate) const LAPIC: u64 = 0xfee0_0000;
/// `KVM_SET_IDENTITY_MAP_ADDR`: one page, needed by Intel CPUs without unrestricted guest.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// `KVM_SET_TSS_ADDR`: the three pages after the identity map.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// First interrupt route for message-signalled interrupts.
pub const MSI_GSI_START: u32 = IOAPIC_PINS;

/// I/O port of the first serial port, a 16550: eight registers.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Its interrupt: an I/O APIC pin, edge-triggered.
pub const SERIAL_GSI: u32 = 4;
/// I/O port of the pvpanic device, where QEMU has it: one byte.
pub const PVPANIC_PORT: u16 = 0x505;
/// I/O port of ACPI's sleep control register (ACPI 6.5, 4.8.3.7): one byte. The guest powers off
/// by writing [`SLEEP_TYPE_S5`] and SLP_EN.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// I/O port of ACPI's sleep status register: one byte, reads 0; writes are ignored.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// I/O port of ACPI's reset register (ACPI 6.5, 4.8.3.6). The guest resets by writing
/// [`RESET_VALUE`].
pub const RESET_PORT: u16 = 0x602;
/// SLP_TYP of S5 (soft off), in the bits 4:2 of the sleep control register.
pub const SLEEP_TYPE_S5: u8 = 5;
/// What the guest writes to [`RESET_PORT`] to reset.
pub const RESET_VALUE: u8 = 1;

/// Where `size` bytes of guest memory go: from 0 on, and what is beyond [`LOW_RAM_END`] from
/// [`HIGH_RAM_START`] on. One or two ranges, in ascending order; none for a size of 0.
pub fn ram_ranges(size: u64) -> Vec<(GuestAddress, u64)> {
    let low = size.min(LOW_RAM_END);
    let ranges = [
        (GuestAddress(0), low),
        (GuestAddress(HIGH_RAM_START), size - low),
    ];
    ranges.into_iter().filter(|(_, size)| *size > 0).collect()
}

/// End of the RAM that begins at 0: where kernel and initrd must fit.
pub(crate) fn low_ram_end(memory: &Memory) -> u64 {
    memory
        .find_region(GuestAddress(0))
        .map_or(0, |region| region.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_cover_exactly_the_size(size in MIN_RAM..=64 << 30) {
            let ranges = ram_ranges(size);
            prop_assert_eq!(ranges.iter().map(|(_, size)| size).sum::<u64>(), size);
            let mut end = 0;
            for (start, size) in ranges {
                prop_assert!(start.0 == 0 || start.0 >= HIGH_RAM_START && start.0 >= end);
                end = start.0 + size;
                prop_assert!(end <= LOW_RAM_END || start.0 >= HIGH_RAM_START);
            }
        }
    }

    #[test]
    fn ranges_at_the_hole() {
        let hole = LOW_RAM_END;
        assert_eq!(ram_ranges(0), []);
        assert_eq!(ram_ranges(hole), [(GuestAddress(0), hole)]);
        let above = (GuestAddress(HIGH_RAM_START), 1 << 20);
        assert_eq!(
            ram_ranges(hole + (1 << 20)),
            [(GuestAddress(0), hole), above]
        );
    }

    #[test]
    fn nothing_overlaps() {
        let areas = [
            (GDT.0, 0x100),
            (PVH_START_INFO.0, 0x1000),
            (ZERO_PAGE.0, 0x1000),
            (PAGE_TABLES.0, 0x3000),
            (COMMAND_LINE.0, 0x1000),
            (EBDA_START, 0xa_0000 - EBDA_START),
            (ACPI_START.0, KERNEL_START - ACPI_START.0),
            (PCI_WINDOW_START, PCI_WINDOW_SIZE),
            (ECAM_START, ECAM_SIZE),
            (IOAPIC, 0x1000),
            (LAPIC, 0x1000),
            (KVM_IDENTITY_MAP, 0x1000),
            (KVM_TSS, 0x3000),
            (HIGH_RAM_START, 1),
        ];
        for pair in areas.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        // ECAM is aligned to its size (PCI Firmware Specification 3.3, 4.1.3).
        assert_eq!(ECAM_START % ECAM_SIZE, 0);
    }
}
