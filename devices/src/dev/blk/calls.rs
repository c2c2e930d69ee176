//! The system calls on a disk's file, made at once.

// They take pointers to guest memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::task::{Call, Task};

/// More pieces than this are left for the next call (UIO_MAXIOV of linux/uio.h).
pub(super) const MAX_PIECES: usize = 1024;

/// Makes the task's next call. Returns how many bytes it moved, if it moves any.
///
/// # Errors
/// The kernel's.
pub(super) fn make(file: &File, task: &Task) -> io::Result<usize> {
    let (fd, range) = (file.as_raw_fd(), task.range());
    let pieces = task.pieces().left();
    let count = pieces.len().min(MAX_PIECES) as i32;
    // The disk's size fits, and its ranges are within it.
    let (offset, length) = (range.offset.cast_signed(), range.length.cast_signed());
    // SAFETY: `count` of the pieces are there, and name memory that lives as long as the task; the
    // other calls take numbers only.
    let result = unsafe {
        match task.call() {
            Call::Read => libc::preadv(fd, pieces.as_ptr(), count, offset),
            Call::Write { stable } => {
                libc::pwritev2(fd, pieces.as_ptr(), count, offset, flags(stable))
            }
            Call::Sync => libc::fdatasync(fd) as isize,
            Call::Allocate(mode) => libc::fallocate(fd, mode, offset, length) as isize,
        }
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The flags of a write, as pwritev2(2) has them.
pub(super) fn flags(stable: bool) -> i32 {
    if stable { libc::RWF_DSYNC } else { 0 }
}
