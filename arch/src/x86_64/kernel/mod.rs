//! The guest kernel: from a file into guest memory.

mod bzimage;
mod elf;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::GuestAddress;

use super::layout;
use crate::Memory;
use crate::image::{self, CopyError};

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
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Where it is entered.
    pub entry: Entry,
    /// What of the file goes where: at or above 1 MiB, below 3 GiB, within the file.
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
    /// An ELF file or bzImage of another kind.
    #[error("not a Linux kernel for this machine: {0}")]
    Unsupported(&'static str),
    /// The headers contradict themselves.
    #[error("the kernel file is damaged: {0}")]
    Damaged(&'static str),
    /// The file ends before what its headers promise.
    #[error("the kernel file is truncated: it has {size} bytes, its headers promise {needed}")]
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
    Copy(#[from] CopyError),
}

impl Kernel {
    /// Reads the headers of a kernel file; not its content.
    ///
    /// # Errors
    /// When it is not a kernel that this machine can boot.
    pub fn read(file: &File) -> Result<Self, Error> {
        let source = Source::new(file)?;
        if elf::is_elf(&source) {
            elf::read(&source)
        } else {
            bzimage::read(&source)
        }
    }

    /// Copies the segments into fresh (zero) guest memory, by read(2) straight into it.
    ///
    /// # Errors
    /// When memory is too small, or the file cannot be read.
    pub fn load(&self, memory: &Memory, file: &File) -> Result<(), Error> {
        const MIB: u64 = 1 << 20;
        let available = layout::low_ram_end(memory);
        if self.end.0 > available {
            return Err(Error::TooLarge {
                needed: self.end.0.div_ceil(MIB),
                available: available / MIB,
            });
        }
        for segment in &self.segments {
            let size = segment.file_size as usize;
            image::copy(memory, segment.address, file, segment.file_offset, size)?;
        }
        Ok(())
    }

    /// Where its initrd may be.
    pub fn initrd_room(&self, memory: &Memory) -> Range<u64> {
        self.end.0..layout::low_ram_end(memory).min(self.initrd_max.0)
    }

    /// A kernel without restrictions of its own; the segments are checked, the entry is not.
    fn new(entry: Entry, segments: Vec<Segment>) -> Result<Self, Error> {
        let mut end = 0;
        for segment in &segments {
            end = end.max(segment.end()?);
        }
        if end > layout::LOW_RAM_END {
            return Err(Error::Unsupported("it wants to be loaded above 3 GiB"));
        }
        Ok(Self {
            entry,
            segments,
            end: GuestAddress(end),
            setup_header: None,
            initrd_max: GuestAddress(layout::LOW_RAM_END),
            command_line_max: layout::COMMAND_LINE_MAX,
        })
    }
}

impl Segment {
    /// Where it ends in guest memory.
    fn end(&self) -> Result<u64, Error> {
        if self.address.0 < layout::KERNEL_START {
            return Err(Error::Unsupported("it wants to be loaded below 1 MiB"));
        }
        if self.file_size > self.memory_size {
            return Err(Error::Damaged(
                "a segment is larger in the file than in memory",
            ));
        }
        let end = self.address.0.checked_add(self.memory_size);
        end.ok_or(Error::Damaged("a segment does not fit into 64 bits"))
    }

    /// Whether guest address `address` is a byte of it.
    fn contains(&self, address: u64) -> bool {
        let offset = address.checked_sub(self.address.0);
        offset.is_some_and(|offset| offset < self.memory_size)
    }
}

/// The 64-bit entry runs on an identity map of this size.
const IDENTITY_MAP: u64 = 1 << 30;

/// A kernel file that is read at random, with its size.
struct Source<'a> {
    file: &'a File,
    size: u64,
}

impl<'a> Source<'a> {
    fn new(file: &'a File) -> Result<Self, Error> {
        let size = file.metadata()?.len();
        match size {
            0 => Err(Error::Empty),
            size => Ok(Self { file, size }),
        }
    }

    /// Fills `bytes` from `offset`.
    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        self.require(offset, bytes.len() as u64)?;
        Ok(self.file.read_exact_at(bytes, offset)?)
    }

    /// Checks that the file has `length` bytes from `offset` on.
    fn require(&self, offset: u64, length: u64) -> Result<(), Error> {
        let size = self.size;
        match offset.checked_add(length) {
            Some(needed) if needed <= size => Ok(()),
            Some(needed) => Err(Error::Truncated { size, needed }),
            None => Err(Error::Damaged("a part of it ends beyond 64 bits")),
        }
    }
}

#[cfg(test)]
mod tests;
