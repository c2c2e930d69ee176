//! Files into guest memory, without a copy in between.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::Memory;

/// Why a file was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The host could not read the file.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    /// The file became shorter than it was.
    #[error("the file ended {0} bytes early")]
    Short(usize),
    /// There is no such guest memory.
    #[error("no guest memory for it: {0}")]
    Memory(GuestMemoryError),
}

/// Copies `size` bytes of the file from `offset` to `address` in guest memory, by read(2) straight
/// into it. Moves the file's position.
pub(crate) fn copy(
    memory: &Memory,
    address: GuestAddress,
    file: &File,
    offset: u64,
    size: usize,
) -> Result<(), CopyError> {
    let mut source = file;
    source.seek(SeekFrom::Start(offset))?;
    let mut done = 0;
    // One read(2) returns at most 2 GiB.
    while done < size {
        let next = GuestAddress(address.0.saturating_add(done as u64));
        match memory.read_volatile_from(next, &mut source, size - done) {
            Ok(0) => return Err(CopyError::Short(size - done)),
            Ok(count) => done += count,
            Err(GuestMemoryError::IOError(error)) => return Err(CopyError::Read(error)),
            Err(error) => return Err(CopyError::Memory(error)),
        }
    }
    Ok(())
}
