//! The map of guest memory, which is all there is: devices are reached by channel programs.
//!
//! ```text
//! 0x0_0000  lowcore of the first CPU, and what the kernel's boot code uses
//! 0x1_0000  kernel: its entry
//! 0x1_0400  parameter area (Linux, arch/s390/include/asm/setup.h, struct parmarea)
//! ...       initrd, as high as possible
//! ```

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryRegion};

use crate::Memory;

/// Least guest memory, in bytes: a kernel and its initrd need some room.
pub const MIN_RAM: u64 = 64 << 20;

/// Where the kernel is loaded and entered.
pub(crate) const KERNEL_START: u64 = 0x1_0000;
/// Of a kernel of Linux: what it is known by.
pub(crate) const MAGIC: u64 = 0x1_0008;
/// Address of the initrd, 8 bytes.
pub(crate) const INITRD_START: GuestAddress = GuestAddress(0x1_0408);
/// Its length, 8 bytes.
pub(crate) const INITRD_SIZE: GuestAddress = GuestAddress(0x1_0410);
/// Room for the command line, 8 bytes that come with the kernel; 0 in older ones.
pub(crate) const COMMAND_LINE_SIZE: u64 = 0x1_0430;
/// The kernel command line, zero-terminated.
pub(crate) const COMMAND_LINE: GuestAddress = GuestAddress(0x1_0480);
/// Room for the command line where the kernel does not tell.
pub(crate) const LEGACY_COMMAND_LINE_SIZE: u64 = 896;
/// Longest kernel command line in bytes that any kernel takes as it is usually configured
/// (`CONFIG_COMMAND_LINE_SIZE`), without the final zero.
pub const COMMAND_LINE_MAX: usize = 4095;

/// Where `size` bytes of guest memory go: all in one piece, from 0 on; none for a size of 0.
pub fn ram_ranges(size: u64) -> Vec<(GuestAddress, u64)> {
    let ranges = [(GuestAddress(0), size)];
    ranges.into_iter().filter(|(_, size)| *size > 0).collect()
}

/// End of the RAM that begins at 0.
pub(crate) fn ram_end(memory: &Memory) -> u64 {
    memory
        .find_region(GuestAddress(0))
        .map_or(0, |region| region.len())
}
