//! Where the library writes an answer that the driver left no room for.
//!
//! The library takes for granted that a READ has room for the answer's header, and panics otherwise.
//! Looking at the opcode first would not do: the guest may change it before the library reads it.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use virtiofsd::descriptor_utils::{Error, Writer};
use vm_memory::{Bytes, GuestAddress};

use crate::Memory;
use crate::queue::Chain;

/// `struct fuse_out_header`, with which every answer begins.
pub(super) const HEADER: usize = 16;

/// A queue of one descriptor: its table, the available ring and the buffer.
const DESCRIPTORS: GuestAddress = GuestAddress(0);
const AVAILABLE: GuestAddress = GuestAddress(0x10);
const BUFFER: GuestAddress = GuestAddress(0x20);
const SIZE: usize = 0x20 + HEADER;

/// Memory of our own with room for the header of an answer, which nobody reads.
pub(super) struct Sink {
    memory: Arc<Memory>,
    chain: Chain,
}

impl Sink {
    pub(super) fn new() -> io::Result<Self> {
        let memory = Memory::from_ranges(&[(DESCRIPTORS, SIZE)]).map_err(io::Error::other)?;
        let memory = Arc::new(memory);
        let chain = chain(&memory).map_err(io::Error::other)?;
        let chain = chain.ok_or_else(|| io::Error::other("an empty queue"))?;
        Ok(Self { memory, chain })
    }

    /// Room for the header of an answer, and nothing else.
    pub(super) fn writer(&self) -> Result<Writer<'_>, Error> {
        Writer::new(&self.memory, self.chain.clone())
    }
}

fn chain(memory: &Arc<Memory>) -> Result<Option<Chain>, virtio_queue::Error> {
    let invalid = virtio_queue::Error::GuestMemory;
    let flags = VRING_DESC_F_WRITE as u16;
    let buffer = Descriptor::new(BUFFER.0, HEADER as u32, flags, 0);
    memory
        .write_obj(RawDescriptor::from(buffer), DESCRIPTORS)
        .map_err(invalid)?;
    // The ring: flags, the index of the next chain, and the first one's descriptor.
    memory
        .write_obj([0_u16, 1, 0].map(u16::to_le), AVAILABLE)
        .map_err(invalid)?;
    let mut queue = Queue::new(1)?;
    queue.try_set_desc_table_address(DESCRIPTORS)?;
    queue.try_set_avail_ring_address(AVAILABLE)?;
    queue.set_ready(true);
    Ok(queue.iter(Arc::clone(memory))?.next())
}
