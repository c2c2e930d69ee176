//! How a disk's contents are reached. For a raw image or a block device: by io_uring, many calls at once,
//! where the host has it. One path for all: calls are started, submitted together, and come back in any
//! order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use tracing::debug;

use super::calls;
use super::image::{self, Image};
use super::ring::Ring;
use super::task::{Call, Task};

/// What came of a call: the number that it was started with, and how many bytes it moved.
pub(super) type Completion = (u16, io::Result<usize>);

/// What a disk's contents are in.
#[derive(Debug)]
pub enum Contents {
    /// A raw image or a block device.
    Raw(File),
    /// An image of another format.
    Image(Box<Image>),
}

/// The contents, and the calls on their way.
pub(super) struct Engine {
    contents: Contents,
    ring: Option<Ring>,
    /// The file is open with O_DIRECT.
    direct: bool,
    /// What came back at once.
    completed: VecDeque<Completion>,
}

impl Engine {
    /// For at most `calls` calls at once.
    pub(super) fn new(contents: Contents, direct: bool, calls: u16) -> Self {
        let ring = match &contents {
            Contents::Raw(file) if !is_memory(file) => Ring::new(file, calls)
                .inspect_err(|error| debug!("disks without io_uring: {error}"))
                .ok(),
            _ => None,
        };
        Self {
            contents,
            ring,
            direct,
            completed: VecDeque::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_ring(file: File, calls: u16) -> io::Result<Self> {
        let ring = Some(Ring::new(&file, calls)?);
        Ok(Self {
            ring,
            ..Self::without_ring(file)
        })
    }

    #[cfg(test)]
    pub(super) fn without_ring(file: File) -> Self {
        Self {
            contents: Contents::Raw(file),
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
            let result = match &mut self.contents {
                Contents::Raw(file) => calls::make(file, task),
                Contents::Image(image) => image::make(image, task),
            };
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

    /// What is written is in the file, though the file may not be on stable storage. Nothing is on its
    /// way.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn finish(&self) -> io::Result<()> {
        match &self.contents {
            Contents::Raw(_) => Ok(()),
            Contents::Image(image) => image::finish(image),
        }
    }

    /// Readable when calls have come back that did not come back at once.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.ring.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Whether a file is in memory, where nothing is to wait for. The file system of such files does not tell
/// io_uring so, which hands each call to a thread of the kernel's.
fn is_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}

/// io_uring hands writes into the page cache to a thread of the kernel's, one after the other: copying
/// the bytes costs less than waking it.
fn is_quicker_here(call: Call, direct: bool) -> bool {
    !direct && call == Call::Write { stable: false }
}
