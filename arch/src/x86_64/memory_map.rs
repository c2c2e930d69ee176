//! What the guest is told about its physical memory (ACPI 6.5, 15: the E820 map).

use vm_memory::{Address, GuestMemory, GuestMemoryRegion};

use super::layout;
use crate::{Machine, Memory};

/// `AddressRangeMemory`.
pub(super) const RAM: u32 = 1;
/// `AddressRangeReserved`.
pub(super) const RESERVED: u32 = 2;

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) size: u64,
    /// [`RAM`] or [`RESERVED`].
    pub(super) kind: u32,
}

/// The map, in ascending order. The first MiB is as on any PC, as kernels take that for granted:
/// RAM up to the extended BIOS data area, the video hole, and the BIOS area with the ACPI tables.
pub(super) fn ranges(memory: &Memory, machine: &Machine) -> Vec<Range> {
    let range = |kind, start: u64, end: u64| Range {
        start,
        size: end.saturating_sub(start),
        kind,
    };
    let mut ranges = vec![
        range(RAM, 0, layout::EBDA_START),
        range(RESERVED, layout::ACPI_START.0, layout::KERNEL_START),
        range(RAM, layout::KERNEL_START, layout::low_ram_end(memory)),
    ];
    if machine.pci {
        let end = layout::ECAM_START + layout::ECAM_SIZE;
        ranges.push(range(RESERVED, layout::ECAM_START, end));
    }
    let regions = memory.iter().map(|r| (r.start_addr().raw_value(), r.len()));
    for (start, size) in regions.filter(|(start, _)| *start >= layout::HIGH_RAM_START) {
        ranges.push(Range {
            start,
            size,
            kind: RAM,
        });
    }
    ranges
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    const MACHINE: Machine = Machine {
        cpus: 1,
        pci: true,
        serial: false,
        pvpanic: false,
    };

    /// Memory of a size that is backed lazily, so that the sizes here cost nothing.
    fn memory(size: u64) -> Memory {
        let ranges = layout::ram_ranges(size);
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|(start, size)| (start, size as usize))
            .collect();
        Memory::from_ranges(&ranges).unwrap()
    }

    #[test]
    fn ram_is_all_but_the_video_and_bios_areas() {
        for size in [64 << 20, 3 << 30, 5 << 30] {
            let ranges = ranges(&memory(size), &MACHINE);
            let ram: u64 = ranges
                .iter()
                .filter(|r| r.kind == RAM)
                .map(|r| r.size)
                .sum();
            assert_eq!(ram, size - (layout::KERNEL_START - layout::EBDA_START));
            for pair in ranges.windows(2) {
                assert!(pair[0].start + pair[0].size <= pair[1].start, "{pair:x?}");
            }
        }
    }

    #[test]
    fn ecam_is_reserved_where_there_is_pci() {
        let memory = memory(5 << 30);
        let ecam = |machine: &Machine| {
            ranges(&memory, machine)
                .iter()
                .any(|r| r.start == layout::ECAM_START)
        };
        assert!(ecam(&MACHINE));
        assert!(!ecam(&Machine {
            pci: false,
            ..MACHINE
        }));
        let high = ranges(&memory, &MACHINE).pop().unwrap();
        assert_eq!(
            GuestAddress(high.start),
            GuestAddress(layout::HIGH_RAM_START)
        );
        assert_eq!(high.size, 2 << 30);
    }
}
