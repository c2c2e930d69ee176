//! The guest kernel: from a file into guest memory.

use std::fs::File;
use std::io;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::GuestAddress;

use crate::Memory;

/// Where vCPU 0 begins, and by which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The PVH boot protocol: 32-bit protected mode without paging.
    Pvh(GuestAddress),
    /// The 64-bit entry of the Linux boot protocol: long mode, the first GiB identity-mapped.
    Linux64(GuestAddress),
}

/// A part of the kernel file, and the place for it in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its first byte in the file.
    pub file_offset: u64,
    /// How many bytes come from the file.
    pub file_size: u64,
    /// Where they go in guest memory.
    pub address: GuestAddress,
    /// Bytes that it takes in guest memory: those beyond `file_size` are zero.
    pub memory_size: u64,
}

/// What a kernel file says about itself.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Where it is entered.
    pub entry: Entry,
    /// What of the file goes where.
    pub segments: Vec<Segment>,
    /// End of the memory that it needs before it knows its memory map.
    pub end: GuestAddress,
    /// The setup header, for a bzImage.
    pub setup_header: Option<setup_header>,
    /// The initrd must end at or below this address.
    pub initrd_max: GuestAddress,
    /// The longest command line that it takes, in bytes.
    pub command_line_max: usize,
}

/// Why a file cannot be loaded as a kernel. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has no bytes.
    #[error("the kernel file is empty")]
    Empty,
    /// Neither ELF nor bzImage.
    #[error("not a Linux kernel: expected an ELF vmlinux or a bzImage")]
    NotAKernel,
    /// An ELF or bzImage of another kind.
    #[error("not a kernel for this machine: {0}")]
    Unsupported(&'static str),
    /// The file ends before what its header promises.
    #[error("the kernel file is truncated: it has {size} bytes, its headers name {needed}")]
    Truncated {
        /// Size of the file in bytes.
        size: u64,
        /// How long it must be at least.
        needed: u64,
    },
    /// Some part has no place in guest memory.
    #[error("the kernel needs at least {needed} MiB of memory, the machine has {available} MiB")]
    TooLarge {
        /// Guest memory that it needs, in MiB, rounded up.
        needed: u64,
        /// Guest memory below 3 GiB, in MiB.
        available: u64,
    },
    /// The host could not read the file.
    #[error("cannot read the kernel: {0}")]
    Read(#[from] io::Error),
    /// Copying into guest memory failed.
    #[error("cannot copy the kernel into guest memory: {0}")]
    Copy(#[from] vm_memory::GuestMemoryError),
}

impl Kernel {
    /// Reads the headers of a kernel file; not its content.
    ///
    /// # Errors
    /// When it is not a kernel that this machine can boot.
    pub fn read(file: &File) -> Result<Self, Error> {
        let _ = file;
        todo!()
    }

    /// Copies the segments into fresh (zero) guest memory, by read(2) straight into it.
    ///
    /// # Errors
    /// When memory is too small, or the file cannot be read.
    pub fn load(&self, memory: &Memory, file: &File) -> Result<(), Error> {
        let _ = (memory, file);
        todo!()
    }
}
