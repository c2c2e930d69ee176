//! The memory that a chain of descriptors names, used up from the front.

use std::vec::IntoIter;

use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::bitmap::WithBitmapSlice;
use vm_memory::{Address, GuestAddress, GuestMemory, VolatileSlice};

use super::Chain;
use crate::Memory;
use crate::device::DeviceError;

/// A piece of guest memory.
pub(crate) type Slice<'a> = VolatileSlice<'a, <BitmapMmapRegion as WithBitmapSlice<'a>>::S>;

/// How many pieces [`Buffers::slices`] gathers: as many as one system call takes.
const MAX_SLICES: usize = crate::stream::MAX_BUFFERS;

/// Either what the device may read of a chain, or what it may write. Each descriptor is read once,
/// when the chain is taken; addresses are checked before they are used.
#[derive(Debug)]
pub(crate) struct Buffers {
    head: u16,
    /// What is left: the first buffer, then the others. Linux' drivers send one mostly, for which
    /// nothing is allocated.
    first: Buffer,
    others: IntoIter<Buffer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Buffer {
    address: GuestAddress,
    length: usize,
}

impl Buffers {
    /// What the driver wrote for the device, in a chain of a queue of `queue_size` descriptors.
    ///
    /// # Errors
    /// When the chain is longer than the queue, or is not to be followed to its end.
    pub(crate) fn readable(chain: Chain, queue_size: u16) -> Result<Self, DeviceError> {
        Self::new(chain, queue_size, false)
    }

    /// What the driver left room for, in the same way.
    ///
    /// # Errors
    /// As [`Self::readable`].
    pub(crate) fn writable(chain: Chain, queue_size: u16) -> Result<Self, DeviceError> {
        Self::new(chain, queue_size, true)
    }

    fn new(chain: Chain, queue_size: u16, writable: bool) -> Result<Self, DeviceError> {
        let head = chain.head_index();
        let (mut first, mut others) = (Buffer::default(), Vec::new());
        let mut has_next = false;
        // Section 2.7.5.3.1: no chain is longer than the queue, those in indirect tables too.
        for descriptor in chain.take(queue_size.into()) {
            has_next = descriptor.has_next();
            if descriptor.is_write_only() == writable && descriptor.len() > 0 {
                let buffer = Buffer {
                    address: descriptor.addr(),
                    length: descriptor.len() as usize,
                };
                if first.length == 0 {
                    first = buffer;
                } else {
                    others.push(buffer);
                }
            }
        }
        if has_next {
            return Err(DeviceError::Driver(format!(
                "descriptor chain {head} does not end within {queue_size} descriptors, its queue's size"
            )));
        }
        Ok(Self {
            head,
            first,
            others: others.into_iter(),
        })
    }

    /// The chain's name, with which it is returned.
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// The next pieces, none of them empty, together at most `limit` bytes; nothing at the end.
    /// `memory` is that of the chain's queue.
    ///
    /// # Errors
    /// When the driver named memory that does not exist.
    pub(crate) fn slices<'a>(
        &self,
        memory: &'a Memory,
        limit: usize,
    ) -> Result<Vec<Slice<'a>>, DeviceError> {
        self.gather(memory, limit, MAX_SLICES)
    }

    /// All pieces at once, as [`Self::slices`] has them.
    ///
    /// # Errors
    /// As [`Self::slices`].
    pub(crate) fn all_slices<'a>(&self, memory: &'a Memory) -> Result<Vec<Slice<'a>>, DeviceError> {
        self.gather(memory, usize::MAX, usize::MAX)
    }

    /// How many bytes are left.
    pub(crate) fn length(&self) -> u64 {
        let others = self.others.as_slice().iter();
        let lengths = others.map(|buffer| buffer.length as u64);
        // There are at most 65535 descriptors, of 32 bits of length each.
        self.first.length as u64 + lengths.sum::<u64>()
    }

    /// Leaves out the last byte, and says where it is. There may be no such memory.
    pub(crate) fn split_last_byte(&mut self) -> Option<GuestAddress> {
        let last = self.others.as_mut_slice().last_mut();
        let last = last.unwrap_or(&mut self.first);
        last.length = last.length.checked_sub(1)?;
        last.address.checked_add(last.length as u64)
    }

    fn gather<'a>(
        &self,
        memory: &'a Memory,
        limit: usize,
        most: usize,
    ) -> Result<Vec<Slice<'a>>, DeviceError> {
        let count = usize::from(self.first.length > 0) + self.others.len();
        let mut slices = Vec::with_capacity(count.min(most));
        let mut room = limit;
        for &Buffer { address, length } in [&self.first].into_iter().chain(self.others.as_slice()) {
            let length = length.min(room);
            room -= length;
            for slice in memory.get_slices(address, length) {
                slices.push(slice.map_err(|error| {
                    DeviceError::Driver(format!("buffer at {:#x}: {error}", address.0))
                })?);
            }
            if room == 0 || slices.len() >= most {
                break;
            }
        }
        Ok(slices)
    }

    /// Leaves out the next `count` bytes, which [`Self::slices`] gave out.
    pub(crate) fn advance(&mut self, mut count: usize) {
        loop {
            let step = count.min(self.first.length);
            // It does not overflow: the memory exists.
            self.first.address = self.first.address.unchecked_add(step as u64);
            self.first.length -= step;
            count -= step;
            if self.first.length > 0 {
                return;
            }
            match self.others.next() {
                Some(next) => self.first = next,
                None => return,
            }
        }
    }
}

#[cfg(test)]
#[path = "buffers_test.rs"]
mod tests;
