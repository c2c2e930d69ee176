//! The initial RAM disk.

use std::fs::File;
use std::io;

use vm_memory::GuestAddress;

use super::layout;
use crate::Memory;
use crate::image::{self, CopyError};
use crate::kernel::Kernel;

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

/// Copies the initrd into guest memory by read(2), as high as the kernel allows.
///
/// # Errors
/// When it is empty, larger than the room for it, or cannot be read.
pub fn load(memory: &Memory, file: &File, kernel: &Kernel) -> Result<Initrd, Error> {
    let size = file.metadata()?.len();
    if size == 0 {
        return Err(Error::Empty);
    }
    let address = place(size, kernel, layout::low_ram_end(memory))?;
    image::copy(memory, address, file, 0, size as usize)?;
    Ok(Initrd { address, size })
}

/// The highest page at which `size` bytes fit above the kernel.
fn place(size: u64, kernel: &Kernel, ram_end: u64) -> Result<GuestAddress, Error> {
    let end = ram_end.min(kernel.initrd_max.0) / PAGE * PAGE;
    let start = kernel
        .end
        .0
        .checked_next_multiple_of(PAGE)
        .unwrap_or(u64::MAX);
    let room = end.saturating_sub(start);
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
    use crate::kernel::Entry;
    use crate::test_memory;

    fn kernel(end: u64, initrd_max: u64) -> Kernel {
        Kernel {
            entry: Entry::Pvh(GuestAddress(layout::KERNEL_START)),
            segments: Vec::new(),
            end: GuestAddress(end),
            setup_header: None,
            initrd_max: GuestAddress(initrd_max),
            command_line_max: 0,
        }
    }

    #[test]
    fn is_copied_to_the_end_of_memory() {
        let memory = test_memory(8 << 20);
        let mut file = crate::test_file(&[]);
        file.write_all(&[0x5a; 5000]).unwrap();
        let initrd = load(&memory, &file, &kernel(2 << 20, layout::LOW_RAM_END)).unwrap();
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
    fn stays_below_what_the_kernel_allows() {
        let address = place(4096, &kernel(2 << 20, 4 << 20), 8 << 20).unwrap();
        assert_eq!(address.0, (4 << 20) - 4096);
    }

    #[test]
    fn empty_and_too_large_are_refused() {
        let memory = test_memory(4 << 20);
        let file = crate::test_file(&[]);
        let kernel = kernel(2 << 20, layout::LOW_RAM_END);
        assert!(matches!(load(&memory, &file, &kernel), Err(Error::Empty)));
        file.set_len((2 << 20) + 1).unwrap();
        let error = load(&memory, &file, &kernel).unwrap_err().to_string();
        assert_eq!(
            error,
            "the initrd has 2097153 bytes, memory has room for 2097152 beside the kernel"
        );
    }

    proptest! {
        #[test]
        fn place_is_within_bounds(
            size in 1..u64::MAX, end in 0..8u64 << 30, max in 0..8u64 << 30, ram in 0..8u64 << 30
        ) {
            if let Ok(address) = place(size, &kernel(end, max), ram) {
                prop_assert_eq!(address.0 % PAGE, 0);
                prop_assert!(address.0 >= end && address.0 + size <= ram.min(max));
            }
        }
    }
}
