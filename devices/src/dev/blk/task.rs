//! One request on its way: which call to the kernel is next, and what comes of it.

use std::io;

use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, c_int};

use super::pieces::Pieces;
use super::request::{Range, Status};

/// A call to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Fill the pieces from the offset.
    Read,
    /// Write the pieces there; `stable`: and have them on stable storage.
    Write { stable: bool },
    /// Have all that was written on stable storage.
    Sync,
    /// Have the file system free or clear the range: the mode of fallocate(2).
    Allocate(c_int),
}

/// What comes after a call.
#[derive(Debug)]
pub(super) enum Next {
    /// One more call.
    Call,
    /// The end, and perhaps why it is none that the driver wished for.
    Done(Status, Option<io::Error>),
}

/// A request that takes one call or more.
pub(super) struct Task {
    call: Call,
    pieces: Pieces,
    range: Range,
    /// Every change is on stable storage before it is answered.
    stable: bool,
    /// Zeroes are written, since the file system cannot clear the range otherwise.
    zeroes: bool,
    /// The driver would not mind if nothing happened.
    hint: bool,
}

impl Task {
    pub(super) fn read(range: Range, pieces: Pieces) -> Self {
        Self::new(Call::Read, range, pieces, false)
    }

    pub(super) fn write(range: Range, pieces: Pieces, stable: bool) -> Self {
        Self::new(Call::Write { stable }, range, pieces, stable)
    }

    pub(super) fn flush() -> Self {
        let nothing = Range {
            offset: 0,
            length: 0,
        };
        Self::new(Call::Sync, nothing, Pieces::none(), false)
    }

    pub(super) fn discard(range: Range, stable: bool) -> Self {
        let call = Call::Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
        Self {
            hint: true,
            ..Self::new(call, range, Pieces::none(), stable)
        }
    }

    /// `unmap`: the range may become a hole.
    pub(super) fn zero(range: Range, unmap: bool, stable: bool) -> Self {
        let how = if unmap {
            FALLOC_FL_PUNCH_HOLE
        } else {
            FALLOC_FL_ZERO_RANGE
        };
        let call = Call::Allocate(how | FALLOC_FL_KEEP_SIZE);
        Self::new(call, range, Pieces::none(), stable)
    }

    fn new(call: Call, range: Range, pieces: Pieces, stable: bool) -> Self {
        Self {
            call,
            pieces,
            range,
            stable,
            zeroes: false,
            hint: false,
        }
    }

    /// The call that is next.
    pub(super) fn call(&self) -> Call {
        self.call
    }

    /// How many bytes of guest memory it fills in all.
    pub(super) fn reads(&self) -> u32 {
        let length = if self.call == Call::Read {
            self.range.length
        } else {
            0
        };
        length.try_into().unwrap_or(u32::MAX)
    }

    /// Its memory.
    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Its part of the disk.
    pub(super) fn range(&self) -> Range {
        self.range
    }

    /// The call came back with `result`: how many bytes it moved, if it moves any.
    pub(super) fn returned(&mut self, result: io::Result<usize>) -> Next {
        match (result, self.call) {
            (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => Next::Call,
            (Err(error), Call::Allocate(_)) if is_unsupported(&error) => self.without_allocate(),
            (Err(error), _) => Next::Done(Status::IoError, Some(error)),
            (Ok(count), Call::Read | Call::Write { .. }) => self.moved(count),
            (Ok(_), Call::Allocate(_)) if self.stable => {
                self.call = Call::Sync;
                Next::Call
            }
            (Ok(_), Call::Allocate(_) | Call::Sync) => Next::Done(Status::Ok, None),
        }
    }

    fn moved(&mut self, count: usize) -> Next {
        if count == 0 {
            // A file that has become shorter, or that takes no more.
            let error = io::ErrorKind::UnexpectedEof;
            return Next::Done(Status::IoError, Some(error.into()));
        }
        self.pieces.advance(count);
        self.range.offset += count as u64;
        self.range.length = self.range.length.saturating_sub(count as u64);
        if self.range.length == 0 {
            return Next::Done(Status::Ok, None);
        }
        if self.zeroes && self.pieces.left().is_empty() {
            self.pieces = Pieces::zeroes(self.range.length);
        }
        Next::Call
    }

    /// The file system cannot do it: nothing happens, or zeroes are written.
    fn without_allocate(&mut self) -> Next {
        if self.hint {
            return Next::Done(Status::Ok, None);
        }
        self.zeroes = true;
        self.pieces = Pieces::zeroes(self.range.length);
        self.call = Call::Write {
            stable: self.stable,
        };
        Next::Call
    }
}

/// What file systems answer that have no such call, block devices, and images of an old version.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || matches!(
            error.raw_os_error(),
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV)
        )
}

#[cfg(test)]
#[path = "task_test.rs"]
mod tests;
