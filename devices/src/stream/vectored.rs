//! The system calls that move bytes straight between a descriptor and guest memory.

// Guest memory is reached through pointers only: no reference to it may exist, as the guest
// changes it at any time.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr;

use nix::errno::Errno;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// More buffers than this are left for the next call. Linux' drivers send one mostly.
pub(crate) const MAX_BUFFERS: usize = 32;

/// The memory of one call, alive for `'a`.
pub(super) struct Vector<'a> {
    buffers: [libc::iovec; MAX_BUFFERS],
    count: usize,
    memory: PhantomData<&'a ()>,
}

const NOTHING: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

impl<'a> Vector<'a> {
    pub(super) fn from_slices<B: BitmapSlice>(slices: &[VolatileSlice<'a, B>]) -> Self {
        let mut vector = Self::empty();
        for (buffer, slice) in vector.buffers.iter_mut().zip(slices) {
            *buffer = libc::iovec {
                // Guest memory is mapped for good, so the guard has nothing to hold.
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            };
            vector.count += 1;
        }
        vector
    }

    /// For writing only.
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Self {
        let mut vector = Self::empty();
        vector.buffers[0] = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        vector.count = 1;
        vector
    }

    /// At most the first `most` bytes, from the first buffer.
    pub(super) fn first(&self, most: usize) -> Self {
        let mut vector = Self::empty();
        if let Some(buffer) = self.used().iter().find(|buffer| buffer.iov_len > 0) {
            vector.buffers[0] = libc::iovec {
                iov_base: buffer.iov_base,
                iov_len: buffer.iov_len.min(most),
            };
            vector.count = 1;
        }
        vector
    }

    pub(super) fn read(&self, fd: RawFd, socket: bool) -> nix::Result<usize> {
        let result = if socket {
            let mut message = self.message();
            // SAFETY: `message` and what it points at live through the call. The kernel writes
            // into the buffers only, which were made from slices that may be written.
            unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) }
        } else {
            // SAFETY: as above; `count` of the buffers are set.
            unsafe { libc::readv(fd, self.buffers.as_ptr(), self.count as i32) }
        };
        Errno::result(result).map(isize::cast_unsigned)
    }

    pub(super) fn write(&self, fd: RawFd, socket: bool) -> nix::Result<usize> {
        let result = if socket {
            let message = self.message();
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `message` and what it points at live through the call, which reads them.
            unsafe { libc::sendmsg(fd, &raw const message, flags) }
        } else {
            // SAFETY: as above; `count` of the buffers are set.
            unsafe { libc::writev(fd, self.buffers.as_ptr(), self.count as i32) }
        };
        Errno::result(result).map(isize::cast_unsigned)
    }

    fn empty() -> Self {
        Self {
            buffers: [NOTHING; MAX_BUFFERS],
            count: 0,
            memory: PhantomData,
        }
    }

    fn used(&self) -> &[libc::iovec] {
        self.buffers.get(..self.count).unwrap_or_default()
    }

    fn message(&self) -> libc::msghdr {
        // SAFETY: all fields of a msghdr may be zero: no address, no buffers, no control data. Its
        // padding differs between C libraries, so that it cannot be written out here.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.buffers.as_ptr().cast_mut();
        message.msg_iovlen = self.count as _;
        message
    }
}
