//! The zero page of the Linux boot protocol (Linux `arch/x86/boot.rst` and `zero-page.rst`).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestMemoryError};

use super::layout;
use super::parameters::Parameters;
use crate::Memory;

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// Protocol 2.12: the fields for the 64-bit entry.
const VERSION: u16 = 0x020c;
/// A boot loader without a registered number.
const LOADER_UNDEFINED: u8 = 0xff;

/// Writes the zero page. `header` is that of the bzImage; `vmlinux` has none.
pub(super) fn write(
    memory: &Memory,
    header: Option<setup_header>,
    parameters: &Parameters<'_>,
) -> Result<(), GuestMemoryError> {
    memory.write_obj(zero_page(header, parameters), layout::ZERO_PAGE)
}

fn zero_page(header: Option<setup_header>, parameters: &Parameters<'_>) -> boot_params {
    let mut page = boot_params {
        hdr: header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            version: VERSION,
            cmdline_size: parameters.command_line_size as u32,
            ..Default::default()
        }),
        acpi_rsdp_addr: layout::ACPI_START.0,
        ..Default::default()
    };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    page.hdr.cmd_line_ptr = layout::COMMAND_LINE.0 as u32;
    if let Some(initrd) = parameters.initrd {
        // Below 3 GiB, so that 32 bits are enough.
        page.hdr.ramdisk_image = initrd.address.0 as u32;
        page.hdr.ramdisk_size = initrd.size as u32;
    }
    let mut table = page.e820_table;
    for (entry, range) in table.iter_mut().zip(&parameters.memory_map) {
        *entry = boot_e820_entry {
            addr: range.start,
            size: range.size,
            type_: range.kind,
        };
        page.e820_entries += 1;
    }
    page.e820_table = table;
    page
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;
    use crate::initrd::Initrd;
    use crate::x86_64::memory_map::{RAM, Range};

    fn parameters(initrd: Option<&Initrd>) -> Parameters<'_> {
        Parameters {
            initrd,
            command_line_size: 9,
            memory_map: vec![
                Range {
                    start: 0,
                    size: 0x9_fc00,
                    kind: RAM
                };
                2
            ],
        }
    }

    /// Offsets as in zero-page.rst and boot.rst.
    fn read<T: vm_memory::ByteValued>(memory: &Memory, offset: u64) -> T {
        memory
            .read_obj(GuestAddress(layout::ZERO_PAGE.0 + offset))
            .unwrap()
    }

    #[test]
    fn fields_are_where_linux_reads_them() {
        let memory = crate::test_memory(1 << 20);
        let initrd = Initrd {
            address: GuestAddress(0x1234_5000),
            size: 77,
        };
        write(&memory, None, &parameters(Some(&initrd))).unwrap();
        assert_eq!(read::<u64>(&memory, 0x70), 0xe_0000); // acpi_rsdp_addr
        assert_eq!(read::<u8>(&memory, 0x1e8), 2); // e820_entries
        assert_eq!(read::<u16>(&memory, 0x1fe), 0xaa55);
        assert_eq!(read::<u32>(&memory, 0x202), 0x5372_6448);
        assert_eq!(read::<u8>(&memory, 0x210), 0xff); // type_of_loader
        assert_eq!(read::<u32>(&memory, 0x218), 0x1234_5000); // ramdisk_image
        assert_eq!(read::<u32>(&memory, 0x21c), 77); // ramdisk_size
        assert_eq!(read::<u32>(&memory, 0x228), 0x2_0000); // cmd_line_ptr
        assert_eq!(read::<u64>(&memory, 0x2d0 + 8), 0x9_fc00); // e820_table
        assert_eq!(read::<u32>(&memory, 0x2d0 + 20 + 16), RAM);
        assert_eq!(read::<u32>(&memory, 0x2d0 + 40 + 16), 0);
    }

    #[test]
    fn the_setup_header_of_the_kernel_is_kept() {
        let header = setup_header {
            init_size: 0x123_4000,
            setup_sects: 27,
            ..Default::default()
        };
        let page = zero_page(Some(header), &parameters(None));
        let (init_size, loader, ramdisk) = (
            page.hdr.init_size,
            page.hdr.type_of_loader,
            page.hdr.ramdisk_image,
        );
        assert_eq!((init_size, loader, ramdisk), (0x123_4000, 0xff, 0));
    }
}
