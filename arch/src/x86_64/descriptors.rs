//! Segment descriptors and page tables for the 64-bit entry, which the Linux boot protocol wants in
//! memory (Linux `arch/x86/boot.rst`, 64-bit boot protocol).

use kvm_bindings::kvm_segment;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;
use crate::Memory;

/// `__BOOT_CS`: the selector that the boot protocol names for code.
const CODE: u16 = 0x10;
/// `__BOOT_DS`.
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Segment types (SDM volume 3A, 3.4.5.1 and 3.5): all with the accessed or busy bit, as a loaded
/// segment has it.
const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_TSS: u8 = 0xb;

/// Page table entry bits (SDM volume 3A, 4.5).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const LARGE_PAGE_SIZE: u64 = 2 << 20;
const TABLE_SIZE: u64 = 4096;
const TABLE_ENTRIES: u64 = 512;

/// Size of the GDT in bytes: two empty descriptors, code, data, and two for the task.
pub(super) const GDT_SIZE: u16 = 6 * 8;

/// Flat code segment, 64-bit or 32-bit.
pub(super) fn code(long: bool) -> kvm_segment {
    kvm_segment {
        l: long.into(),
        db: (!long).into(),
        ..flat(CODE, TYPE_CODE)
    }
}

/// Flat data segment.
pub(super) fn data() -> kvm_segment {
    flat(DATA, TYPE_DATA)
}

/// The task segment, which VMX and SVM want to be valid; nothing uses it.
pub(super) fn task() -> kvm_segment {
    kvm_segment {
        selector: TASK,
        type_: TYPE_TSS,
        limit: 0x67,
        present: 1,
        ..Default::default()
    }
}

/// 4 GiB from 0 on, in pages.
fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        selector,
        type_,
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    }
}

/// The segment as a descriptor in memory (SDM volume 3A, 3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = segment.type_ | segment.s << 4 | segment.dpl << 5 | segment.present << 7;
    let flags = segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3;
    limit & 0xffff
        | (segment.base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xf) << 48
        | u64::from(flags) << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// Writes the GDT and the page tables: the first GiB, identity-mapped in pages of 2 MiB.
pub(super) fn write(memory: &Memory) -> Result<(), GuestMemoryError> {
    let gdt = [
        0,
        0,
        descriptor(&code(true)),
        descriptor(&data()),
        descriptor(&task()),
        0,
    ];
    write_words(memory, layout::GDT, gdt)?;
    let table = |n: u64| GuestAddress(layout::PAGE_TABLES.0 + n * TABLE_SIZE);
    memory.write_obj(table(1).0 | WRITABLE | PRESENT, table(0))?;
    memory.write_obj(table(2).0 | WRITABLE | PRESENT, table(1))?;
    let pages = (0..TABLE_ENTRIES).map(|n| (n * LARGE_PAGE_SIZE) | LARGE | WRITABLE | PRESENT);
    write_words(memory, table(2), pages)
}

/// Writes 64-bit words in a row.
fn write_words(
    memory: &Memory,
    address: GuestAddress,
    words: impl IntoIterator<Item = u64>,
) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    memory.write_slice(&bytes, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_as_in_the_boot_protocol() {
        assert_eq!(descriptor(&code(true)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code(false)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task()), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn page_tables_map_the_first_gib_to_itself() {
        let memory = crate::test_memory(1 << 20);
        write(&memory).unwrap();
        let read = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        for address in [0, 0x12_3456, 0x10_0000, 0x2000_0000, 0x3fff_ffff_u64] {
            let mut table = layout::PAGE_TABLES.0;
            for shift in [39, 30] {
                let entry = read(table + (address >> shift & 0x1ff) * 8);
                assert_eq!(entry & 0xfff, WRITABLE | PRESENT);
                table = entry & !0xfff;
            }
            let page = read(table + (address >> 21 & 0x1ff) * 8);
            assert_eq!(page & 0xfff, LARGE | WRITABLE | PRESENT);
            assert_eq!(page & !0xfff | address & 0x1f_ffff, address);
        }
    }
}
