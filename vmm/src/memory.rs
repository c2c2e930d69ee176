//! Guest memory: private anonymous pages, huge where the host can.
#![allow(unsafe_code)] // mmap and madvise, and handing the result to vm-memory

use std::io;
use std::ptr;

use devices::Memory;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Address, GuestAddress, GuestMemory, GuestMemoryRegion, GuestRegionMmap};

use crate::hypervisor::{KVM_MEM_READONLY, VmFd, kvm_userspace_memory_region};

/// The size of a transparent huge page on x86_64; s390x uses 1 MiB, for which this is fine too.
const HUGE_PAGE: usize = 2 << 20;

/// Maps guest memory for `ranges` (guest address and length in bytes, ascending and apart). Pages
/// come when they are touched, zeroed; the mapping lasts as long as the process, since devices in
/// any thread may hold it.
///
/// # Errors
/// When the address space or the host's overcommit limit does not allow it.
pub fn allocate(ranges: &[(GuestAddress, u64)]) -> io::Result<Memory> {
    let mut regions = Vec::with_capacity(ranges.len());
    for &(base, length) in ranges {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let start = map_aligned(length)?;
        // SAFETY: `start` and `length` are a mapping that was just made and is never unmapped.
        let builder = unsafe { MmapRegionBuilder::new(length).with_raw_mmap_pointer(start) };
        let mapping = builder
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()
            .map_err(io::Error::other)?;
        let region = GuestRegionMmap::new(mapping, base)
            .ok_or_else(|| io::Error::other("guest memory ends past the address space"))?;
        regions.push(region);
    }
    Memory::from_regions(regions).map_err(io::Error::other)
}

/// Gives `vm` the memory that [`allocate`] made, one slot for each region.
///
/// # Errors
/// When KVM refuses a slot.
pub fn register(vm: &VmFd, memory: &Memory) -> io::Result<()> {
    register_from(vm, 0, 0, memory)
}

/// The same from this slot on with memory that the guest can only read: what it writes there exits.
///
/// # Errors
/// When KVM refuses a slot.
pub fn register_read_only(vm: &VmFd, slot: u32, memory: &Memory) -> io::Result<()> {
    register_from(vm, slot, KVM_MEM_READONLY, memory)
}

/// Has all pages come now, so that the host can write to them.
///
/// # Errors
/// When the host has not so much memory, or is older than Linux 5.14.
#[cfg(target_arch = "s390x")]
pub fn populate(memory: &Memory) -> io::Result<()> {
    for region in memory.iter() {
        let (start, length) = (region.as_ptr().cast(), region.len() as usize);
        // SAFETY: the region is mapped; its content stays.
        if unsafe { libc::madvise(start, length, libc::MADV_POPULATE_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes back what a slot has; accesses of the guest exit then.
///
/// # Errors
/// When there is no such slot.
pub fn unregister(vm: &VmFd, slot: u32) -> io::Result<()> {
    let nothing = kvm_userspace_memory_region {
        slot,
        ..Default::default()
    };
    // SAFETY: a slot of size 0 refers to no memory.
    Ok(unsafe { vm.set_user_memory_region(nothing) }?)
}

fn register_from(vm: &VmFd, first: u32, flags: u32, memory: &Memory) -> io::Result<()> {
    for (slot, region) in (first..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped, nothing else is in it, and it is never unmapped.
        unsafe { vm.set_user_memory_region(region) }?;
    }
    Ok(())
}

/// Anonymous memory that starts at a huge page boundary, so that huge pages can back all of it:
/// guest addresses start at such a boundary, too, and KVM maps a huge page only where both do.
fn map_aligned(length: usize) -> io::Result<*mut u8> {
    let reserved = length
        .checked_add(HUGE_PAGE)
        .ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing else.
    let whole = unsafe {
        libc::mmap(
            ptr::null_mut(),
            reserved,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if whole == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let head = whole.align_offset(HUGE_PAGE);
    // SAFETY: `head` < HUGE_PAGE, so `start..start + length` lies inside of the mapping, which is
    // ours alone; what lies before and behind it is given back, and not used by anyone.
    unsafe {
        let start = whole.byte_add(head);
        if head > 0 {
            libc::munmap(whole, head);
        }
        let tail = (reserved - head - length) / 4096 * 4096;
        if tail > 0 {
            libc::munmap(whole.byte_add(reserved - tail), tail);
        }
        // Advice: a kernel without huge pages answers EINVAL, and small pages work as well.
        libc::madvise(start, length, libc::MADV_HUGEPAGE);
        Ok(start.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn regions_start_at_huge_page_boundaries_and_are_zeroed() {
        let ranges = [(GuestAddress(0), 3 << 20), (GuestAddress(4 << 30), 5 << 20)];
        let memory = allocate(&ranges).unwrap();
        assert_eq!(memory.num_regions(), 2);
        for region in memory.iter() {
            assert_eq!(region.as_ptr() as usize % HUGE_PAGE, 0);
        }
        let last = GuestAddress((4 << 30) + (5 << 20) - 8);
        assert_eq!(memory.read_obj::<u64>(last).unwrap(), 0);
        memory.write_obj(7u64, last).unwrap();
        assert_eq!(memory.read_obj::<u64>(last).unwrap(), 7);
        assert!(memory.write_obj(7u64, GuestAddress(3 << 20)).is_err());
    }

    #[test]
    fn more_than_the_address_space_is_an_error() {
        assert!(allocate(&[(GuestAddress(0), u64::MAX)]).is_err());
        assert!(allocate(&[(GuestAddress(0), 1 << 60)]).is_err());
    }
}
