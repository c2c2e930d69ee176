//! What flows from the host to the guest: input into the driver's buffers.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;

use super::readiness::Readiness;
use crate::Memory;
use crate::device::{DeviceError, Token, Watch};
use crate::queue::VirtQueue;
use crate::queue::buffers::Buffers;
use crate::queue::turn::{Served, Turn, take_turn};
use crate::stream::{Input, Read};

/// The most that is read into one chain; Linux' have a page.
const MAX_READ: usize = 64 << 10;

/// What the guest reads from a port.
#[derive(Debug)]
pub(super) enum Source {
    /// Nothing ever comes, not even an end.
    Absent,
    /// The guest has not opened the port. The input waits: Linux drops what comes before.
    Closed(Input),
    /// Input flows whenever the guest has room for it.
    Open(Input, Readiness),
    /// There will be no more input.
    Ended,
}

impl Source {
    pub(super) fn new(input: Option<Input>) -> Self {
        input.map_or(Self::Absent, Self::Closed)
    }

    /// The guest opened the port.
    pub(super) fn open(&mut self) {
        self.replace(|source| match source {
            Self::Closed(input) => Self::Open(input, Readiness::default()),
            source => source,
        });
    }

    /// The guest closed the port.
    pub(super) fn close(&mut self, watch: &mut dyn Watch) {
        if let Self::Open(_, readiness) = self {
            readiness.unwatch(watch);
        }
        self.reset();
    }

    /// The driver is gone, and with it what was watched.
    pub(super) fn reset(&mut self) {
        self.replace(|source| match source {
            Self::Open(input, _) => Self::Closed(input),
            source => source,
        });
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Moves input into the driver's buffers, until one of the two is used up.
    pub(super) fn receive(
        &mut self,
        queue: &mut VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let Self::Open(input, readiness) = self else {
            return Ok(());
        };
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        let mut ended = false;
        let turn = take_turn(queue, |chain| {
            let buffers = Buffers::writable(chain, size)?;
            Ok(match read(input, &buffers, &memory)? {
                // At most MAX_READ.
                Some(Read::Data(count)) => Served::Used(count as u32),
                Some(Read::WouldBlock) => Served::Refused,
                Some(Read::End) => {
                    ended = true;
                    Served::Refused
                }
                None => Served::Used(0),
            })
        })?;
        if ended {
            readiness.unwatch(watch);
            *self = Self::Ended;
        } else if turn == Turn::Waiting {
            readiness.watch(input.as_raw_fd(), token, EventSet::IN, watch)?;
        }
        Ok(())
    }

    fn replace(&mut self, change: impl FnOnce(Self) -> Self) {
        *self = change(std::mem::replace(self, Self::Ended));
    }
}

/// Reads what there is into `buffers`. `None` if they have no room: reading nothing would look like
/// the end.
fn read(input: &Input, buffers: &Buffers, memory: &Memory) -> Result<Option<Read>, DeviceError> {
    let slices = buffers.slices(memory, MAX_READ)?;
    Ok((!slices.is_empty()).then(|| input.read(&slices)))
}
