//! The requests that the kernel works on.

use std::io;

use vm_memory::GuestAddress;

use super::answer;
use super::request::Status;
use super::task::{Next, Task};
use crate::device::DeviceError;
use crate::queue::VirtQueue;

/// Whence a request came, and where its answer goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The queue's index.
    pub(super) queue: usize,
    /// The chain's name in there.
    pub(super) head: u16,
    /// Where the status goes.
    pub(super) status: GuestAddress,
    /// How many bytes it fills before that, if all goes well.
    pub(super) written: u32,
}

impl Origin {
    /// Returns the chain to the driver.
    ///
    /// # Errors
    /// When the driver broke the queue.
    pub(super) fn answer(&self, queue: &mut VirtQueue, status: Status) -> Result<(), DeviceError> {
        let written = if status == Status::Ok {
            self.written
        } else {
            0
        };
        let memory = queue.memory();
        let written = answer(memory, self.status, status, written);
        Ok(queue.push(self.head, written)?)
    }
}

/// Requests by numbers.
pub(super) struct UnderWay {
    entries: Vec<Option<(Origin, Task)>>,
    free: Vec<u16>,
}

impl UnderWay {
    /// Room for `most` requests.
    pub(super) fn new(most: u16) -> Self {
        Self {
            entries: (0..most).map(|_| None).collect(),
            free: (0..most).rev().collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    /// Adds a request, if there is room. Returns its number, and the task to be started.
    pub(super) fn add(&mut self, origin: Origin, task: Task) -> Option<(u16, &Task)> {
        let number = self.free.pop()?;
        let entry = self.entries.get_mut(usize::from(number))?;
        let (_, task) = entry.insert((origin, task));
        Some((number, task))
    }

    /// The task of a request whose next call is to be started.
    pub(super) fn task(&self, number: u16) -> Option<&Task> {
        let entry = self.entries.get(usize::from(number))?;
        entry.as_ref().map(|(_, task)| task)
    }

    /// The request's call came back with `result`.
    pub(super) fn returned(&mut self, number: u16, result: io::Result<usize>) -> Option<Next> {
        let entry = self.entries.get_mut(usize::from(number))?;
        let (_, task) = entry.as_mut()?;
        Some(task.returned(result))
    }

    /// Takes out a request that none of the kernel's calls is about any more.
    pub(super) fn remove(&mut self, number: u16) -> Option<Origin> {
        let entry = self.entries.get_mut(usize::from(number))?;
        let (origin, _) = entry.take()?;
        self.free.push(number);
        Some(origin)
    }
}
