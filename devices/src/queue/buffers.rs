//! The memory that a chain of descriptors names, used up from the front.

use std::sync::Arc;

use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::bitmap::WithBitmapSlice;
use vm_memory::{Address, GuestAddress, GuestMemory, VolatileSlice};

use super::Chain;
use crate::Memory;
use crate::device::DeviceError;

/// A piece of guest memory.
pub(crate) type Slice<'a> = VolatileSlice<'a, <BitmapMmapRegion as WithBitmapSlice<'a>>::S>;

/// How many pieces [`Buffers::slices`] gathers: as many as one system call takes.
const MAX_SLICES: usize = crate::stream::MAX_BUFFERS;

/// Either what the device may read of a chain, or what it may write. Walking it takes time in
/// proportion to the descriptors, however often it is interrupted; addresses are checked before
/// they are used.
#[derive(Debug)]
pub(crate) struct Buffers {
    head: u16,
    memory: Arc<Memory>,
    rest: DescriptorChain<Arc<Memory>>,
    writable: bool,
    /// What is left of the descriptor in front of `rest`.
    address: GuestAddress,
    length: usize,
}

impl Buffers {
    /// What the driver wrote for the device.
    pub(crate) fn readable(chain: Chain, memory: &Arc<Memory>) -> Self {
        Self::new(chain, memory, false)
    }

    /// What the driver left room for.
    pub(crate) fn writable(chain: Chain, memory: &Arc<Memory>) -> Self {
        Self::new(chain, memory, true)
    }

    fn new(chain: Chain, memory: &Arc<Memory>, writable: bool) -> Self {
        Self {
            head: chain.head_index(),
            memory: Arc::clone(memory),
            rest: chain,
            writable,
            address: GuestAddress(0),
            length: 0,
        }
    }

    /// The chain's name, with which it is returned.
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// The next pieces, none of them empty, together at most `limit` bytes; nothing at the end.
    ///
    /// # Errors
    /// When the driver named memory that does not exist.
    pub(crate) fn slices(&mut self, limit: usize) -> Result<Vec<Slice<'_>>, DeviceError> {
        self.skip_empty();
        let mut slices = Vec::with_capacity(1);
        let mut room = limit;
        let rest = self.rest.clone().filter(fits(self.writable));
        let descriptors = rest.map(|d| (d.addr(), d.len() as usize));
        for (address, length) in [(self.address, self.length)].into_iter().chain(descriptors) {
            let length = length.min(room);
            room -= length;
            for slice in self.memory.get_slices(address, length) {
                slices.push(slice.map_err(|error| {
                    DeviceError::Driver(format!("buffer at {:#x}: {error}", address.0))
                })?);
            }
            if room == 0 || slices.len() >= MAX_SLICES {
                break;
            }
        }
        Ok(slices)
    }

    /// Leaves out the next `count` bytes, which [`Self::slices`] gave out.
    pub(crate) fn advance(&mut self, mut count: usize) {
        loop {
            let step = count.min(self.length);
            // It does not overflow: the memory exists.
            self.address = self.address.unchecked_add(step as u64);
            self.length -= step;
            count -= step;
            if count == 0 || !self.next_descriptor() {
                return;
            }
        }
    }

    fn skip_empty(&mut self) {
        while self.length == 0 && self.next_descriptor() {}
    }

    fn next_descriptor(&mut self) -> bool {
        let Some(descriptor) = self.rest.by_ref().find(fits(self.writable)) else {
            return false;
        };
        (self.address, self.length) = (descriptor.addr(), descriptor.len() as usize);
        true
    }
}

fn fits(writable: bool) -> impl Fn(&Descriptor) -> bool {
    move |descriptor| descriptor.is_write_only() == writable
}
