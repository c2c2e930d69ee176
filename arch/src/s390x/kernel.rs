//! The guest kernel: an image of Linux as it is installed (arch/s390/boot/bzImage), into guest memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use vm_memory::GuestAddress;

use super::layout;
use crate::Memory;
use crate::image::{self, CopyError};

/// What every kernel has at [`layout::MAGIC`] (`EP_STRING` of arch/s390/include/asm/setup.h).
const MAGIC: &[u8; 6] = b"S390EP";
/// How an ELF file begins: vmlinux is one, but only its boot code can be entered.
const ELF: &[u8; 4] = b"\x7fELF";

/// Where vCPU 0 begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub GuestAddress);

/// What a kernel file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Where it is entered.
    pub entry: Entry,
    /// End of the memory that it is loaded to, which is the length of its file: an offset there is an address here.
    pub end: GuestAddress,
    /// The longest command line that it takes, in bytes.
    pub command_line_max: usize,
}

/// Why a file cannot be loaded as a kernel. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has no bytes.
    #[error("the kernel file is empty")]
    Empty,
    /// The magic is not there.
    #[error("not a Linux kernel for s390x: expected its bzImage")]
    NotAKernel,
    /// An ELF file.
    #[error("an ELF file cannot be booted on s390x: use the bzImage, which unpacks it")]
    Elf,
    /// It has no place in guest memory.
    #[error("the kernel needs at least {needed} MiB of memory, the machine has {available} MiB")]
    TooLarge {
        /// Guest memory that it needs, in MiB, rounded up.
        needed: u64,
        /// Guest memory, in MiB.
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
    /// Reads what a kernel file says about itself; not its content.
    ///
    /// # Errors
    /// When it is not a kernel that this machine can boot.
    pub fn read(file: &File) -> Result<Self, Error> {
        let size = file.metadata()?.len();
        if size == 0 {
            return Err(Error::Empty);
        }
        let mut begin = [0; ELF.len()];
        let mut magic = [0; MAGIC.len()];
        let is_elf = size >= ELF.len() as u64 && {
            file.read_exact_at(&mut begin, 0)?;
            begin == *ELF
        };
        if is_elf {
            return Err(Error::Elf);
        }
        // The parameter area is a part of it.
        if size < layout::COMMAND_LINE.0 + layout::LEGACY_COMMAND_LINE_SIZE {
            return Err(Error::NotAKernel);
        }
        file.read_exact_at(&mut magic, layout::MAGIC)?;
        if magic != *MAGIC {
            return Err(Error::NotAKernel);
        }
        let mut room = [0; 8];
        file.read_exact_at(&mut room, layout::COMMAND_LINE_SIZE)?;
        Ok(Self {
            entry: Entry(GuestAddress(layout::KERNEL_START)),
            end: GuestAddress(size),
            command_line_max: command_line_max(u64::from_be_bytes(room), size),
        })
    }

    /// Copies it into fresh (zero) guest memory, by read(2) straight into it. What it has before its entry is for
    /// firmware.
    ///
    /// # Errors
    /// When memory is too small, or the file cannot be read.
    pub fn load(&self, memory: &Memory, file: &File) -> Result<(), Error> {
        const MIB: u64 = 1 << 20;
        let available = layout::ram_end(memory);
        if self.end.0 > available {
            return Err(Error::TooLarge {
                needed: self.end.0.div_ceil(MIB),
                available: available / MIB,
            });
        }
        let start = layout::KERNEL_START;
        let size = (self.end.0 - start) as usize;
        Ok(image::copy(memory, GuestAddress(start), file, start, size)?)
    }

    /// Where its initrd may be.
    pub fn initrd_room(&self, memory: &Memory) -> Range<u64> {
        self.end.0..layout::ram_end(memory)
    }
}

/// The longest command line, without the final zero: within what the kernel says, the file and what any kernel takes.
fn command_line_max(told: u64, file_size: u64) -> usize {
    let room = match told {
        0 => layout::LEGACY_COMMAND_LINE_SIZE,
        told => told.min(file_size.saturating_sub(layout::COMMAND_LINE.0)),
    };
    // Never more than this constant, so that it fits.
    (room - 1).min(layout::COMMAND_LINE_MAX as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;
    use crate::{test_file, test_memory};

    /// An image with room for a command line as it tells.
    fn image(told: u64, size: usize) -> Vec<u8> {
        let mut image = vec![0x55; size];
        image[0x1_0008..0x1_000e].copy_from_slice(b"S390EP");
        image[0x1_0430..0x1_0438].copy_from_slice(&told.to_be_bytes());
        image
    }

    fn read(bytes: &[u8]) -> Result<Kernel, Error> {
        Kernel::read(&test_file(bytes))
    }

    #[test]
    fn is_loaded_where_it_is_entered() {
        let file = test_file(&image(4096, 0x2_0000));
        let kernel = Kernel::read(&file).unwrap();
        assert_eq!(kernel.entry.0.0, 0x1_0000);
        assert_eq!(kernel.command_line_max, 4095);
        let memory = test_memory(1 << 20);
        kernel.load(&memory, &file).unwrap();
        let byte = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!((byte(0xffff), byte(0x1_0000)), (0, 0x55));
        assert_eq!((byte(0x1_ffff), byte(0x2_0000)), (0x55, 0));
        assert_eq!(kernel.initrd_room(&memory), 0x2_0000..1 << 20);
    }

    #[test]
    fn a_kernel_that_does_not_tell_takes_a_short_command_line() {
        assert_eq!(read(&image(0, 0x2_0000)).unwrap().command_line_max, 895);
        assert_eq!(read(&image(1, 0x2_0000)).unwrap().command_line_max, 0);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(matches!(read(b""), Err(Error::Empty)));
        assert!(matches!(read(b"S390EP"), Err(Error::NotAKernel)));
        assert!(matches!(read(b"\x7fELF"), Err(Error::Elf)));
        assert!(matches!(read(&[0; 0x2_0000]), Err(Error::NotAKernel)));
        let file = test_file(&image(0, 0x20_0001));
        let error = Kernel::read(&file)
            .unwrap()
            .load(&test_memory(1 << 20), &file);
        assert_eq!(
            error.unwrap_err().to_string(),
            "the kernel needs at least 3 MiB of memory, the machine has 1 MiB"
        );
    }

    proptest! {
        #[test]
        fn the_command_line_stays_within_the_file(told: u64, size in 0x1_0800_u64..1 << 30) {
            let longest = command_line_max(told, size) as u64;
            prop_assert!(longest <= layout::COMMAND_LINE_MAX as u64);
            prop_assert!(layout::COMMAND_LINE.0 + longest < size);
        }
    }
}
