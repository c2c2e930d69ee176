//! The compressed kernel, `bzImage`, by its 64-bit entry (Linux `arch/x86/boot.rst`).

use linux_loader::loader::bootparam::setup_header;
use vm_memory::{ByteValued, GuestAddress};

use super::{Entry, Error, IDENTITY_MAP, Kernel, Segment, Source};
use crate::layout;

/// Offset of the setup header in the file.
const SETUP_HEADER: u64 = 0x1f1;
/// Its own offset counts from here; the byte before says how long the header goes on.
const JUMP: u64 = 0x202;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// First boot protocol with `xloadflags`: Linux 3.8.
const VERSION_2_12: u16 = 0x020c;
/// `loadflags`: the kernel is loaded at 1 MiB or above, so it is a bzImage.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry at 0x200.
const KERNEL_64: u16 = 1 << 0;
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// Unit of `syssize`.
const PARAGRAPH: u64 = 16;

pub(super) fn read(source: &Source<'_>) -> Result<Kernel, Error> {
    let header = setup_header(source)?;
    let segment = segment(source, &header)?;
    let entry = Entry::Linux64(GuestAddress(segment.address.0 + ENTRY_64));
    let mut kernel = Kernel::new(entry, vec![segment])?;
    if kernel.end.0 > IDENTITY_MAP {
        return Err(Error::Unsupported("a bzImage that is loaded above 1 GiB"));
    }
    // `initrd_addr_max` is the last address that the initrd may take.
    let initrd_max = (u64::from(header.initrd_addr_max) + 1).min(layout::LOW_RAM_END);
    kernel.initrd_max = GuestAddress(initrd_max);
    let command_line_max = header.cmdline_size as usize;
    kernel.command_line_max = kernel.command_line_max.min(command_line_max);
    kernel.setup_header = Some(header);
    Ok(kernel)
}

/// The setup header, checked to be of a bzImage with a 64-bit entry.
fn setup_header(source: &Source<'_>) -> Result<setup_header, Error> {
    let mut magic = [0; 4];
    if source.read(&mut magic, JUMP).is_err() || u32::from_le_bytes(magic) != HEADER_MAGIC {
        return Err(Error::NotAKernel);
    }
    let mut length = [0];
    source.read(&mut length, JUMP - 1)?;
    let end = JUMP + u64::from(length[0]);
    let mut header = setup_header::default();
    let size = header.as_slice().len().min((end - SETUP_HEADER) as usize);
    let bytes = header.as_mut_slice().get_mut(..size).unwrap_or_default();
    source.read(bytes, SETUP_HEADER)?;

    if header.boot_flag != BOOT_FLAG {
        return Err(Error::Damaged("it has no boot flag"));
    }
    if header.version < VERSION_2_12 {
        return Err(Error::Unsupported("a bzImage older than Linux 3.8"));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(Error::Unsupported("a zImage, expected a bzImage"));
    }
    if header.xloadflags & KERNEL_64 == 0 {
        return Err(Error::Unsupported(
            "a 32-bit bzImage, expected a 64-bit one",
        ));
    }
    Ok(header)
}

/// The part of the file that runs in protected mode, for the address that the kernel prefers. That
/// is where it unpacks itself, so that no more memory is needed than for this anyway.
fn segment(source: &Source<'_>, header: &setup_header) -> Result<Segment, Error> {
    let sectors = match header.setup_sects {
        0 => 4,
        sectors => sectors,
    };
    let file_offset = (u64::from(sectors) + 1) * SECTOR;
    let promised = u64::from(header.syssize) * PARAGRAPH;
    // `syssize` is rounded up; behind it there may be a signature.
    source.require(file_offset, promised.saturating_sub(PARAGRAPH - 1))?;
    let file_size = promised.min(source.size.saturating_sub(file_offset));
    if file_size <= ENTRY_64 {
        return Err(Error::Damaged("there is nothing behind its setup header"));
    }
    Ok(Segment {
        file_offset,
        file_size,
        address: GuestAddress(header.pref_address),
        memory_size: u64::from(header.init_size).max(file_size),
    })
}
