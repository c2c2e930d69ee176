//! The PVH boot protocol: `hvm_start_info` with its module list and memory map (Xen
//! `docs/misc/pvh.pandoc`, `arch-x86/hvm/start_info.h`).

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;
use super::parameters::Parameters;
use crate::Memory;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The version with a memory map.
const VERSION: u32 = 1;
/// Behind the start info, in the same page.
const MODULES: GuestAddress = GuestAddress(layout::PVH_START_INFO.0 + 0x100);
const MEMORY_MAP: GuestAddress = GuestAddress(layout::PVH_START_INFO.0 + 0x200);

/// Writes the start info, and what it points to.
pub(super) fn write(memory: &Memory, parameters: &Parameters<'_>) -> Result<(), GuestMemoryError> {
    let mut entries = 0;
    let mut address = MEMORY_MAP;
    for range in &parameters.memory_map {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.size,
            type_: range.kind,
            reserved: 0,
        };
        memory.write_obj(entry, address)?;
        address.0 += size_of_val(&entry) as u64;
        entries += 1;
    }
    if let Some(initrd) = parameters.initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.address.0,
            size: initrd.size,
            ..Default::default()
        };
        memory.write_obj(module, MODULES)?;
    }
    let start_info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: parameters.initrd.iter().count() as u32,
        modlist_paddr: parameters.initrd.map_or(0, |_| MODULES.0),
        cmdline_paddr: layout::COMMAND_LINE.0,
        rsdp_paddr: layout::ACPI_START.0,
        memmap_paddr: MEMORY_MAP.0,
        memmap_entries: entries,
        ..Default::default()
    };
    memory.write_obj(start_info, layout::PVH_START_INFO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initrd::Initrd;
    use crate::x86_64::memory_map::{RAM, RESERVED, Range};

    #[test]
    fn start_info_points_to_modules_and_memory_map() {
        let memory = crate::test_memory(1 << 20);
        let initrd = Initrd {
            address: GuestAddress(0x50_0000),
            size: 4242,
        };
        let parameters = Parameters {
            initrd: Some(&initrd),
            command_line_size: 0,
            memory_map: vec![
                Range {
                    start: 0,
                    size: 0x9_fc00,
                    kind: RAM,
                },
                Range {
                    start: 0xe_0000,
                    size: 0x2_0000,
                    kind: RESERVED,
                },
            ],
        };
        write(&memory, &parameters).unwrap();
        let info: hvm_start_info = memory.read_obj(layout::PVH_START_INFO).unwrap();
        assert_eq!((info.magic, info.version, info.nr_modules), (MAGIC, 1, 1));
        assert_eq!(info.cmdline_paddr, layout::COMMAND_LINE.0);
        assert_eq!(info.rsdp_paddr, 0xe_0000);
        assert_eq!(info.memmap_entries, 2);
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x50_0000, 4242));
        let second = GuestAddress(info.memmap_paddr + 24);
        let entry: hvm_memmap_table_entry = memory.read_obj(second).unwrap();
        assert_eq!(
            (entry.addr, entry.size, entry.type_),
            (0xe_0000, 0x2_0000, RESERVED)
        );
    }

    #[test]
    fn without_initrd_there_is_no_module() {
        let memory = crate::test_memory(1 << 20);
        let parameters = Parameters {
            initrd: None,
            command_line_size: 0,
            memory_map: Vec::new(),
        };
        write(&memory, &parameters).unwrap();
        let info: hvm_start_info = memory.read_obj(layout::PVH_START_INFO).unwrap();
        assert_eq!((info.nr_modules, info.modlist_paddr), (0, 0));
    }
}
