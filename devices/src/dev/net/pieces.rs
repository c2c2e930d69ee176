//! Pieces of guest memory that packets are read into, or written from, by the kernel.

// Guest memory is reached through pointers only: no reference to it may exist, as the guest
// changes it at any time.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use nix::errno::Errno;

use crate::Memory;
use crate::device::DeviceError;
use crate::queue::buffers::Buffers;

/// As many as one system call takes (UIO_MAXIOV of linux/uio.h), less one for the spill.
pub(super) const MAX_PIECES: usize = 1023;

/// Buffers of one or several chains, in order.
pub(super) struct Pieces {
    /// All within `memory`, which is mapped as long as it lives.
    list: Vec<libc::iovec>,
    memory: Arc<Memory>,
}

// SAFETY: the pointers are into memory that all threads share, and that `memory` keeps.
unsafe impl Send for Pieces {}

impl Pieces {
    /// None yet; all that come are in `memory`.
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            list: Vec::new(),
            memory,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Adds the first `limit` bytes of `buffers`. Returns how many there were.
    ///
    /// # Errors
    /// When they are not in memory, or too many; then none are added.
    pub(super) fn append(
        &mut self,
        mut buffers: Buffers,
        limit: usize,
    ) -> Result<usize, DeviceError> {
        let count = self.count();
        let added = self.try_append(&mut buffers, limit);
        if added.is_err() {
            self.list.truncate(count);
        }
        added
    }

    fn try_append(&mut self, buffers: &mut Buffers, limit: usize) -> Result<usize, DeviceError> {
        let mut total = 0;
        while total < limit {
            let slices = buffers.slices(&self.memory, limit - total)?;
            if slices.is_empty() {
                break;
            }
            let bytes = slices.iter().map(|slice| slice.len()).sum();
            self.list.extend(slices.iter().map(|slice| libc::iovec {
                // Guest memory is mapped for good, so the guard has nothing to hold.
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            }));
            buffers.advance(bytes);
            total += bytes;
            if self.count() > MAX_PIECES {
                let error = format!("more than {MAX_PIECES} buffers for a packet");
                return Err(DeviceError::Driver(error));
            }
        }
        Ok(total)
    }

    /// Leaves out all but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.list.truncate(count);
    }

    /// Leaves out the first `count`.
    pub(super) fn remove(&mut self, count: usize) {
        self.list.drain(..count.min(self.list.len()));
    }

    /// Reads a packet. What finds no room in the pieces is put into `spill`. Returns the length of
    /// both together.
    pub(super) fn read(&mut self, fd: RawFd, spill: &mut [u8]) -> nix::Result<usize> {
        self.list.push(libc::iovec {
            iov_base: spill.as_mut_ptr().cast(),
            iov_len: spill.len(),
        });
        // SAFETY: the kernel writes into the pieces, which are guest memory that `memory` keeps, and
        // into `spill`, which is borrowed for the call. There are at most MAX_PIECES and one.
        let result = unsafe { libc::readv(fd, self.list.as_ptr(), self.list.len() as i32) };
        self.list.pop();
        Errno::result(result).map(isize::cast_unsigned)
    }

    /// Writes a packet. Returns how much of it was taken.
    pub(super) fn write(&self, fd: RawFd) -> nix::Result<usize> {
        // SAFETY: the kernel reads from the pieces, which are guest memory that `memory` keeps.
        let result = unsafe { libc::writev(fd, self.list.as_ptr(), self.list.len() as i32) };
        Errno::result(result).map(isize::cast_unsigned)
    }

    /// Copies `data` to `offset` bytes into the pieces; what is beyond their end is dropped.
    pub(super) fn write_at(&self, mut offset: usize, mut data: &[u8]) {
        for piece in &self.list {
            if data.is_empty() {
                return;
            }
            if offset >= piece.iov_len {
                offset -= piece.iov_len;
                continue;
            }
            let (now, later) = data.split_at(data.len().min(piece.iov_len - offset));
            // SAFETY: `offset` and the length of `now` are within the piece, which is guest memory
            // that `memory` keeps; `now` is memory of ours.
            unsafe {
                let to = piece.iov_base.cast::<u8>().add(offset);
                ptr::copy_nonoverlapping(now.as_ptr(), to, now.len());
            }
            data = later;
            offset = 0;
        }
    }
}
