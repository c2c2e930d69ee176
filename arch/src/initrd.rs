//! The initial RAM disk.

use std::fs::File;
use std::io;
use std::ops::Range;

use vm_memory::GuestAddress;

use crate::Memory;
use crate::image::{self, CopyError};

const PAGE: u64 = 4096;

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
    #[error("the initrd has {size} bytes, memory has room for {room} beside the kernel")]
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
    Copy(#[from] CopyError),
}

/// Copies the initrd into guest memory by read(2), as high as it may be: `room` comes from the kernel.
///
/// # Errors
/// When it is empty, larger than the room for it, or cannot be read.
pub fn load(memory: &Memory, file: &File, room: Range<u64>) -> Result<Initrd, Error> {
    let size = file.metadata()?.len();
    if size == 0 {
        return Err(Error::Empty);
    }
    let address = place(size, room)?;
    image::copy(memory, address, file, 0, size as usize)?;
    Ok(Initrd { address, size })
}

/// The highest page at which `size` bytes fit.
fn place(size: u64, room: Range<u64>) -> Result<GuestAddress, Error> {
    let end = room.end / PAGE * PAGE;
    let start = room.start.checked_next_multiple_of(PAGE);
    let room = end.saturating_sub(start.unwrap_or(u64::MAX));
    if size > room {
        return Err(Error::TooLarge { size, room });
    }
    Ok(GuestAddress((end - size) / PAGE * PAGE))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;
    use crate::test_memory;

    #[test]
    fn is_copied_to_the_end_of_memory() {
        let memory = test_memory(8 << 20);
        let mut file = crate::test_file(&[]);
        file.write_all(&[0x5a; 5000]).unwrap();
        let initrd = load(&memory, &file, 2 << 20..8 << 20).unwrap();
        let address = GuestAddress((8 << 20) - 8192);
        assert_eq!(
            initrd,
            Initrd {
                address,
                size: 5000
            }
        );
        let mut bytes = [0; 5001];
        memory.read_slice(&mut bytes, address).unwrap();
        assert!(bytes[..5000].iter().all(|byte| *byte == 0x5a));
        assert_eq!(bytes[5000], 0);
    }

    #[test]
    fn stays_below_the_end_of_its_room() {
        let address = place(4096, 2 << 20..4 << 20).unwrap();
        assert_eq!(address.0, (4 << 20) - 4096);
    }

    #[test]
    fn empty_and_too_large_are_refused() {
        let memory = test_memory(4 << 20);
        let file = crate::test_file(&[]);
        let room = 2 << 20..4 << 20;
        assert!(matches!(
            load(&memory, &file, room.clone()),
            Err(Error::Empty)
        ));
        file.set_len((2 << 20) + 1).unwrap();
        let error = load(&memory, &file, room).unwrap_err().to_string();
        assert_eq!(
            error,
            "the initrd has 2097153 bytes, memory has room for 2097152 beside the kernel"
        );
    }

    proptest! {
        #[test]
        fn place_is_within_bounds(
            size in prop_oneof![1..8u64 << 30, any::<u64>()], start in any::<u64>(), end in 0..8u64 << 30
        ) {
            let start = start % (8 << 30);
            if let Ok(address) = place(size, start..end) {
                prop_assert_eq!(address.0 % PAGE, 0);
                prop_assert!(address.0 >= start && address.0 + size <= end);
            }
        }
    }
}
