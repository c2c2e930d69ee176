use proptest::prelude::*;
use vm_memory::{ByteValued, Bytes};

use super::*;
use crate::{test_file, test_memory};

const MIB: u64 = 1 << 20;
const NOTES: usize = 0x400;
const CODE: usize = 0x1000;

/// An ELF kernel of one segment at 16 MiB with 64 bytes of code and 192 bytes of zeros, and notes.
fn vmlinux(notes: &[u8]) -> Vec<u8> {
    let mut file = vec![0; CODE];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[18] = 62; // x86-64
    file[24..32].copy_from_slice(&(16 * MIB + 8).to_le_bytes()); // entry
    file[32] = 64; // program headers
    file[54] = 56;
    file[56] = 2;
    let headers = [
        program_header(1, CODE, 16 * MIB, 64, 256),
        program_header(4, NOTES, 0, notes.len() as u64, notes.len() as u64),
    ];
    file[64..64 + 112].copy_from_slice(&headers.concat());
    file[NOTES..NOTES + notes.len()].copy_from_slice(notes);
    file.extend([0x90; 64]);
    file
}

fn program_header(kind: u32, offset: usize, address: u64, file: u64, memory: u64) -> Vec<u8> {
    let mut header = u64::from(kind).to_le_bytes().to_vec();
    for word in [offset as u64, address, address, file, memory, 4096] {
        header.extend(word.to_le_bytes());
    }
    header
}

fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32, content.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    for part in [name, content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn pvh_notes() -> Vec<u8> {
    let entry = 16 * MIB + 0x20;
    [
        note(b"Linux\0", 257, b"abc"),
        note(b"Xen\0", 18, &entry.to_le_bytes()),
    ]
    .concat()
}

/// A bzImage of two setup sectors and 1 KiB of code, which wants 4 MiB at 16 MiB.
fn bzimage() -> Vec<u8> {
    let header = setup_header {
        setup_sects: 1,
        syssize: 1024 / 16,
        boot_flag: 0xaa55,
        jump: 0x6aeb,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x20f,
        loadflags: 1,
        initrd_addr_max: 0x7fff_ffff,
        relocatable_kernel: 1,
        xloadflags: 0x7f,
        cmdline_size: 2047,
        pref_address: 16 * MIB,
        init_size: (4 * MIB) as u32,
        ..Default::default()
    };
    let mut file = vec![0; 0x1f1];
    file.extend(header.as_slice());
    file.resize(1024, 0);
    file.extend([0xcc; 1024]);
    file
}

fn read(bytes: &[u8]) -> Result<Kernel, Error> {
    Kernel::read(&test_file(bytes))
}

fn message(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn vmlinux_with_pvh_entry() {
    let kernel = read(&vmlinux(&pvh_notes())).unwrap();
    assert_eq!(kernel.entry, Entry::Pvh(GuestAddress(16 * MIB + 0x20)));
    assert_eq!(kernel.end, GuestAddress(16 * MIB + 256));
    assert_eq!(kernel.initrd_max, GuestAddress(layout::LOW_RAM_END));
    assert!(kernel.setup_header.is_none());
}

#[test]
fn vmlinux_without_pvh_entry() {
    let other = note(b"Xen\0", 5, &[0; 8]);
    for notes in [
        Vec::new(),
        other,
        note(b"GNU\0", 18, &[1; 8]),
        vec![0xff; 20],
    ] {
        let kernel = read(&vmlinux(&notes)).unwrap();
        assert_eq!(kernel.entry, Entry::Linux64(GuestAddress(16 * MIB + 8)));
    }
}

#[test]
fn vmlinux_is_copied() {
    let file = test_file(&vmlinux(&[]));
    let memory = test_memory(32 << 20);
    Kernel::read(&file).unwrap().load(&memory, &file).unwrap();
    let mut bytes = [1; 66];
    memory
        .read_slice(&mut bytes, GuestAddress(16 * MIB - 1))
        .unwrap();
    assert_eq!((bytes[0], bytes[65]), (0, 0));
    assert!(bytes[1..65].iter().all(|byte| *byte == 0x90));
}

#[test]
fn bzimage_is_copied_to_where_it_wants() {
    let file = test_file(&bzimage());
    let kernel = Kernel::read(&file).unwrap();
    assert_eq!(kernel.entry, Entry::Linux64(GuestAddress(16 * MIB + 0x200)));
    assert_eq!(kernel.end, GuestAddress(20 * MIB));
    assert_eq!(kernel.initrd_max, GuestAddress(0x8000_0000));
    let init_size = kernel.setup_header.unwrap().init_size;
    assert_eq!(u64::from(init_size), 4 * MIB);
    let memory = test_memory(32 << 20);
    kernel.load(&memory, &file).unwrap();
    let mut bytes = [0; 1026];
    memory
        .read_slice(&mut bytes, GuestAddress(16 * MIB - 1))
        .unwrap();
    assert_eq!((bytes[0], bytes[1025]), (0, 0));
    assert!(bytes[1..1025].iter().all(|byte| *byte == 0xcc));
}

#[test]
fn files_that_are_no_kernels() {
    assert_eq!(message(b""), "the kernel file is empty");
    let no_kernel = "not a Linux kernel: expected an ELF vmlinux or a bzImage";
    assert_eq!(message(b"#!/bin/sh\n"), no_kernel);
    assert_eq!(message(&[0; 4096]), no_kernel);
    let mut elf32 = vmlinux(&[]);
    elf32[4] = 1;
    assert!(message(&elf32).contains("32-bit ELF"));
    let mut arm = vmlinux(&[]);
    arm[18] = 183;
    assert!(message(&arm).contains("another processor"));
    let mut bzimage32 = bzimage();
    bzimage32[0x236] = 0; // xloadflags
    assert!(message(&bzimage32).contains("32-bit bzImage"));
    let mut old = bzimage();
    old[0x206] = 0x0b; // version 2.11
    assert!(message(&old).contains("older than Linux 3.8"));
}

#[test]
fn truncated_files() {
    let elf = vmlinux(&[]);
    assert_eq!(
        message(&elf[..elf.len() - 1]),
        "the kernel file is truncated: it has 4159 bytes, its headers promise 4160"
    );
    assert!(message(&elf[..100]).contains("truncated"));
    let bzimage = bzimage();
    assert!(message(&bzimage[..1500]).contains("truncated"));
    assert!(message(&bzimage[..0x210]).contains("truncated"));
}

#[test]
fn too_little_memory() {
    let file = test_file(&bzimage());
    let error = Kernel::read(&file)
        .unwrap()
        .load(&test_memory(8 << 20), &file)
        .unwrap_err();
    let expected = "the kernel needs at least 20 MiB of memory, the machine has 8 MiB";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_that_shrinks_after_its_headers_were_read() {
    let file = test_file(&vmlinux(&[]));
    let kernel = Kernel::read(&file).unwrap();
    file.set_len(4096 + 16).unwrap();
    let error = kernel.load(&test_memory(32 << 20), &file).unwrap_err();
    assert!(
        error.to_string().ends_with("the file ended 48 bytes early"),
        "{error}"
    );
}

#[test]
fn addresses_that_make_no_sense() {
    let with = |address: u64, memory: u64| {
        let mut file = vmlinux(&[]);
        file[64..120].copy_from_slice(&program_header(1, CODE, address, 64, memory));
        file[24..32].copy_from_slice(&address.to_le_bytes());
        message(&file)
    };
    assert!(with(0x1000, 64).contains("below 1 MiB"));
    assert!(with(2 << 30, 64).contains("above 1 GiB"));
    assert!(with(512 * MIB, 3 << 30).contains("above 3 GiB"));
    assert!(with(16 * MIB, u64::MAX).contains("64 bits"));
    assert!(with(16 * MIB, 63).contains("larger in the file"));
    let mut entry = vmlinux(&[]);
    entry[24..32].copy_from_slice(&MIB.to_le_bytes());
    assert!(message(&entry).contains("entry is outside"));
}

/// Whatever a file contains, it is refused, or everything that it asks for is within bounds.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let file = test_file(bytes);
    let Ok(kernel) = Kernel::read(&file) else {
        return Ok(());
    };
    for segment in &kernel.segments {
        prop_assert!(segment.file_offset + segment.file_size <= bytes.len() as u64);
        prop_assert!(segment.address.0 >= layout::KERNEL_START);
        prop_assert!(segment.address.0 + segment.memory_size <= kernel.end.0);
        prop_assert!(segment.file_size <= segment.memory_size);
    }
    prop_assert!(kernel.end.0 <= layout::LOW_RAM_END);
    let (Entry::Pvh(entry) | Entry::Linux64(entry)) = kernel.entry;
    prop_assert!(
        kernel
            .segments
            .iter()
            .any(|segment| segment.contains(entry.0))
    );
    // Too large for this memory, or loaded.
    let _ = kernel.load(&test_memory(32 << 20), &file);
    Ok(())
}

fn mutations(length: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..length, any::<u8>()), 1..8)
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        check(&bytes)?;
    }

    #[test]
    fn any_vmlinux_header(changes in mutations(0xb0), notes in mutations(60), cut in 0..8000usize) {
        let mut file = vmlinux(&pvh_notes());
        for (at, byte) in changes {
            file[at] = byte;
        }
        for (at, byte) in notes {
            file[NOTES + at] = byte;
        }
        file.truncate(cut);
        check(&file)?;
    }

    #[test]
    fn any_bzimage_header(changes in mutations(0x7b), cut in 0..4000usize) {
        let mut file = bzimage();
        for (at, byte) in changes {
            file[0x1f1 + at] = byte;
        }
        file.truncate(cut);
        check(&file)?;
    }

    /// Sizes and addresses from the corners of their ranges.
    #[test]
    fn any_segment(
        offset in corner(), address in corner(), file_size in corner(), memory_size in corner(),
        kind in prop::sample::select(vec![1u32, 4])
    ) {
        let mut file = vmlinux(&[]);
        let header = program_header(kind, offset as usize, address, file_size, memory_size);
        file[64..120].copy_from_slice(&header);
        file[24..32].copy_from_slice(&address.to_le_bytes());
        check(&file)?;
    }
}

fn corner() -> impl Strategy<Value = u64> {
    let bases = vec![
        0,
        64,
        4096,
        MIB,
        16 * MIB,
        1 << 30,
        3 << 30,
        1 << 32,
        u64::MAX,
    ];
    (prop::sample::select(bases), 0..3u64).prop_map(|(base, more)| base.wrapping_add(more))
}
