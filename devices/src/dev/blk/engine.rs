//! How calls to the kernel are made: by io_uring, many at once, where the host has it; else one after
//! the other. One path for both: calls are started, submitted together, and come back in any order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use tracing::debug;

use super::calls;
use super::ring::Ring;
use super::task::{Call, Task};

/// What came of a call: the number that it was started with, and how many bytes it moved.
pub(super) type Completion = (u16, io::Result<usize>);

/// The file, and the calls on their way.
pub(super) struct Engine {
    file: File,
    ring: Option<Ring>,
    /// The file is open with O_DIRECT.
    direct: bool,
    /// What came back at once.
    completed: VecDeque<Completion>,
}

impl Engine {
    /// For at most `calls` calls at once.
    pub(super) fn new(file: File, direct: bool, calls: u16) -> Self {
        let ring = Ring::new(&file, calls);
        let ring = ring.inspect_err(|error| debug!("disks without io_uring: {error}"));
        Self {
            file,
            ring: ring.ok(),
            direct,
            completed: VecDeque::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn without_ring(file: File) -> Self {
        Self {
            file,
            ring: None,
            direct: false,
            completed: VecDeque::new(),
        }
    }

    /// Starts the task's next call; `task` stays where it is, with its memory, until the call
    /// `number` has come back.
    pub(super) fn start(&mut self, number: u16, task: &Task) {
        let started = match &mut self.ring {
            Some(ring) if !is_quicker_here(task.call(), self.direct) => ring.start(number, task),
            _ => false,
        };
        if !started {
            let result = calls::make(&self.file, task);
            self.completed.push_back((number, result));
        }
    }

    /// Hands what was started to the kernel.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.ring.as_mut().map_or(Ok(()), Ring::submit)
    }

    /// The next call that has come back.
    pub(super) fn completed(&mut self) -> Option<Completion> {
        let at_once = self.completed.pop_front();
        at_once.or_else(|| self.ring.as_mut()?.completed())
    }

    /// Waits until a call has come back, if any is on its way.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub(super) fn wait(&mut self) -> io::Result<()> {
        match &mut self.ring {
            Some(ring) if self.completed.is_empty() => ring.wait(),
            _ => Ok(()),
        }
    }

    /// Readable when calls have come back that did not come back at once.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.ring.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// io_uring hands writes into the page cache to a thread of the kernel's, one after the other: copying
/// the bytes costs less than waking it.
fn is_quicker_here(call: Call, direct: bool) -> bool {
    !direct && call == Call::Write { stable: false }
}
