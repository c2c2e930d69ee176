//! io_uring: calls that the kernel works on while others are started.

// The kernel is handed pointers to guest memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::register::Restriction;
use io_uring::squeue::Entry;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};

use super::calls::{MAX_PIECES, flags};
use super::engine::Completion;
use super::task::{Call, Task};

/// The file's number among those that the ring knows: it knows no other.
const FILE: Fixed = Fixed(0);

/// IOSQE_FIXED_FILE_BIT of linux/io_uring.h, which the crate has as a flag it can not take apart.
const FIXED_FILE: u8 = 1 << 0;

/// A ring for one file. It can do nothing but what a disk needs, and that with this file alone.
pub(super) struct Ring {
    ring: IoUring,
    /// Calls that have not come back.
    under_way: usize,
}

impl Ring {
    /// A ring for at most `calls` calls at once.
    ///
    /// # Errors
    /// When the kernel has no io_uring, or does not let us have it.
    pub(super) fn new(file: &File, calls: u16) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_r_disabled()
            .build(u32::from(calls))?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        let allowed = [
            opcode::Readv::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
        ];
        let mut restrictions: Vec<_> = allowed.map(Restriction::sqe_op).into();
        restrictions.push(Restriction::sqe_flags_required(FIXED_FILE));
        submitter.register_restrictions(&mut restrictions)?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, under_way: 0 })
    }

    /// Starts the task's next call, at the latest with the next [`Self::submit`]. Returns whether
    /// there was room for it.
    pub(super) fn start(&mut self, number: u16, task: &Task) -> bool {
        let entry = entry(task).user_data(number.into());
        // SAFETY: what the entry points at lives until the call has come back: the device keeps the
        // task that long, and drops no ring without waiting (`Self::drop`).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        self.under_way += usize::from(pushed.is_ok());
        pushed.is_ok()
    }

    /// Hands what was started to the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.enter(0)
    }

    /// The next call that has come back.
    pub(super) fn completed(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        self.under_way = self.under_way.saturating_sub(1);
        let result = entry.result();
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Some((entry.user_data() as u16, result))
    }

    /// Waits until a call has come back, if any is on its way.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub(super) fn wait(&mut self) -> io::Result<()> {
        if self.under_way == 0 {
            return Ok(());
        }
        self.enter(1)
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(want) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }
}

fn entry(task: &Task) -> Entry {
    let (range, pieces) = (task.range(), task.pieces().left());
    let count = pieces.len().min(MAX_PIECES) as u32;
    match task.call() {
        Call::Read => opcode::Readv::new(FILE, pieces.as_ptr(), count)
            .offset(range.offset)
            .build(),
        Call::Write { stable } => opcode::Writev::new(FILE, pieces.as_ptr(), count)
            .offset(range.offset)
            .rw_flags(flags(stable))
            .build(),
        Call::Sync => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        Call::Allocate(mode) => opcode::Fallocate::new(FILE, range.length)
            .offset(range.offset)
            .mode(mode)
            .build(),
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Drop for Ring {
    /// The kernel may not write into memory that is somebody else's by then.
    fn drop(&mut self) {
        while self.under_way > 0 && self.wait().is_ok() {
            while self.completed().is_some() {}
        }
    }
}
