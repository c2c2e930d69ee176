//! The ELF kernel, `vmlinux`: its program headers say what goes where, a note says whether it has a
//! PVH entry.

use vm_memory::GuestAddress;

use super::{Entry, Error, IDENTITY_MAP, Kernel, Segment, Source};

const MAGIC: &[u8; 4] = b"\x7fELF";
/// `e_ident`: 64-bit, little-endian.
const CLASS_64: u8 = 2;
const DATA_LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
/// Linux has five or six; more than this is no kernel.
const MAX_PROGRAM_HEADERS: u16 = 64;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Linux's notes have about 500 bytes.
const MAX_NOTES: u64 = 64 << 10;
/// The type of the note that holds the PVH entry (Xen, `elfnote.h`).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// A program header, as far as we need it.
struct ProgramHeader {
    kind: u32,
    offset: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
}

pub(super) fn is_elf(source: &Source<'_>) -> bool {
    let mut magic = [0; MAGIC.len()];
    source.read(&mut magic, 0).is_ok() && magic == *MAGIC
}

pub(super) fn read(source: &Source<'_>) -> Result<Kernel, Error> {
    let mut header = [0; HEADER_SIZE];
    source.read(&mut header, 0)?;
    check(&header)?;
    let headers = program_headers(source, &header)?;
    let loaded = headers
        .iter()
        .filter(|header| header.kind == PT_LOAD && header.memory_size > 0);
    let mut segments = Vec::new();
    for header in loaded {
        source.require(header.offset, header.file_size)?;
        segments.push(Segment {
            file_offset: header.offset,
            file_size: header.file_size,
            address: GuestAddress(header.physical_address),
            memory_size: header.memory_size,
        });
    }
    let entry = match pvh_entry(source, &headers)? {
        Some(address) => Entry::Pvh(GuestAddress(address)),
        None => Entry::Linux64(GuestAddress(u64_at(&header, 24))),
    };
    let (Entry::Pvh(address) | Entry::Linux64(address)) = entry;
    let Some(first) = segments.iter().find(|segment| segment.contains(address.0)) else {
        return Err(Error::Damaged("its entry is outside of its segments"));
    };
    if matches!(entry, Entry::Linux64(_)) && first.address.0 >= IDENTITY_MAP {
        return Err(Error::Unsupported("its 64-bit entry is above 1 GiB"));
    }
    Kernel::new(entry, segments)
}

fn check(header: &[u8; HEADER_SIZE]) -> Result<(), Error> {
    let [_, _, _, _, class, data, ..] = *header;
    if class != CLASS_64 {
        return Err(Error::Unsupported(
            "a 32-bit ELF file, expected a 64-bit one",
        ));
    }
    if data != DATA_LITTLE_ENDIAN || u16_at(header, 18) != MACHINE_X86_64 {
        return Err(Error::Unsupported(
            "an ELF file for another processor than x86-64",
        ));
    }
    if usize::from(u16_at(header, 54)) != PROGRAM_HEADER_SIZE {
        return Err(Error::Damaged("its program headers have an unknown size"));
    }
    Ok(())
}

fn program_headers(source: &Source<'_>, header: &[u8]) -> Result<Vec<ProgramHeader>, Error> {
    let offset = u64_at(header, 32);
    let count = u16_at(header, 56);
    if count > MAX_PROGRAM_HEADERS {
        return Err(Error::Damaged("it has too many program headers"));
    }
    let mut bytes = vec![0; usize::from(count) * PROGRAM_HEADER_SIZE];
    source.read(&mut bytes, offset)?;
    let headers = bytes.chunks_exact(PROGRAM_HEADER_SIZE);
    Ok(headers
        .map(|header| ProgramHeader {
            kind: u32_at(header, 0),
            offset: u64_at(header, 8),
            physical_address: u64_at(header, 24),
            file_size: u64_at(header, 32),
            memory_size: u64_at(header, 40),
        })
        .collect())
}

/// The PVH entry, if a note names one.
fn pvh_entry(source: &Source<'_>, headers: &[ProgramHeader]) -> Result<Option<u64>, Error> {
    for header in headers.iter().filter(|header| header.kind == PT_NOTE) {
        source.require(header.offset, header.file_size)?;
        let mut notes = vec![0; header.file_size.min(MAX_NOTES) as usize];
        source.read(&mut notes, header.offset)?;
        if let Some(entry) = xen_phys32_entry(&notes) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Walks through notes: length of the name, length of the content, type, name, content; the last
/// two padded to 4 bytes.
fn xen_phys32_entry(mut notes: &[u8]) -> Option<u64> {
    const HEADER: usize = 12;
    while notes.len() >= HEADER {
        let (header, rest) = notes.split_at(HEADER);
        let (name_size, content_size) = (u32_at(header, 0) as usize, u32_at(header, 4) as usize);
        let name = rest.get(..name_size)?;
        let rest = rest.get(name_size.next_multiple_of(4)..)?;
        let content = rest.get(..content_size)?;
        if u32_at(header, 8) == XEN_ELFNOTE_PHYS32_ENTRY && name == b"Xen\0" {
            // Linux writes 8 bytes on x86-64, other kernels 4: the address has 32 bits.
            return (content_size >= 4).then(|| u64::from(u32_at(content, 0)));
        }
        // The last note may lack its padding.
        notes = rest
            .get(content_size.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    None
}

/// `N` bytes at a fixed place of a header; zeros if it is too short for them.
fn bytes_at<const N: usize>(header: &[u8], offset: usize) -> [u8; N] {
    let bytes = header.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.copied().unwrap_or([0; N])
}

fn u16_at(header: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(bytes_at(header, offset))
}

fn u32_at(header: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes_at(header, offset))
}

fn u64_at(header: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes_at(header, offset))
}
