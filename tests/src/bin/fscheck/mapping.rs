//! A file in memory.
#![allow(unsafe_code)] // mmap(2), and the bytes that it gives

use std::ffi::c_void;
use std::fs::File;
use std::ptr;

use anyhow::{Result, ensure};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// The first bytes of a file, mapped for reading and writing.
pub(crate) struct Mapping {
    start: *mut c_void,
    length: usize,
}

impl Mapping {
    /// Changes reach the file.
    pub(crate) fn shared(file: &File, length: usize) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let start = unsafe { mmap(ptr::null_mut(), length, access, MapFlags::SHARED, file, 0) }?;
        Ok(Self { start, length })
    }

    /// A copy of all bytes.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        // SAFETY: `length` bytes are mapped from `start` on as long as `self` is there, and the
        // vector is another, as long memory. The checks keep the file at least that long.
        unsafe {
            ptr::copy_nonoverlapping(self.start.cast::<u8>(), bytes.as_mut_ptr(), self.length);
        }
        bytes
    }

    /// Writes bytes at an offset.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        ensure!(
            offset + bytes.len() <= self.length,
            "past the end of the mapping"
        );
        // SAFETY: as in `read`; the range was checked.
        unsafe {
            let to = self.start.cast::<u8>().add(offset);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Ok(())
    }

    /// Waits until all changes are in the file.
    pub(crate) fn sync(&self) -> Result<()> {
        // SAFETY: the range is mapped.
        Ok(unsafe { msync(self.start, self.length, MsyncFlags::SYNC) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and nothing refers to it any more. It cannot fail
        // for a range that is mapped.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
