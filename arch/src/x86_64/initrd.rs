//! The initial RAM disk.

use std::fs::File;
use std::io;

use vm_memory::GuestAddress;

use crate::{Memory, kernel::Kernel};

/// Where the initrd is in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// Its first byte, page-aligned.
    pub address: GuestAddress,
    /// Its length in bytes.
    pub size: u64,
}

/// Why an initrd cannot be loaded. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has no bytes.
    #[error("the initrd is empty")]
    Empty,
    /// It does not fit between the kernel and the end of memory.
    #[error("the initrd has {size} bytes, memory has room for {room} bytes beside the kernel")]
    TooLarge {
        /// Its length in bytes.
        size: u64,
        /// The room in bytes.
        room: u64,
    },
    /// The host could not read the file.
    #[error("cannot read the initrd: {0}")]
    Read(#[from] io::Error),
    /// Copying into guest memory failed.
    #[error("cannot copy the initrd into guest memory: {0}")]
    Copy(#[from] vm_memory::GuestMemoryError),
}

/// Copies the initrd into guest memory by read(2), as high as the kernel allows.
///
/// # Errors
/// When it is empty, larger than the room for it, or cannot be read.
pub fn load(memory: &Memory, file: &File, kernel: &Kernel) -> Result<Initrd, Error> {
    let _ = (memory, file, kernel);
    todo!()
}
