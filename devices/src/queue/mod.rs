//! A virtqueue: the ring in guest memory and its two eventfds (virtio 1.3, section 2.7).

pub(crate) mod buffers;
pub(crate) mod turn;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::Memory;

/// A chain of descriptors that the driver made available. Walking it ends, even if it has a loop:
/// after as many descriptors as its table has, which for an indirect one may be more than the queue
/// (`buffers.rs` refuses that). Addresses are checked when they are used.
pub type Chain = DescriptorChain<Arc<Memory>>;

/// A virtqueue in use: popping a chain, giving it back and signalling are written once, here.
#[derive(Debug)]
pub struct VirtQueue {
    ring: Queue,
    memory: Arc<Memory>,
    kick: EventFd,
    call: EventFd,
    /// The used ring's index when the driver was last considered for a signal.
    signalled: u16,
}

/// The driver broke the rules of the virtqueue; it cannot be used until a reset.
#[derive(Debug, thiserror::Error)]
#[error("virtqueue broken by the driver: {0}")]
pub struct QueueError(#[from] Error);

impl VirtQueue {
    /// A queue whose ring the transport has set up and found valid (or not ready).
    pub fn new(ring: Queue, memory: Arc<Memory>, kick: EventFd, call: EventFd) -> Self {
        Self {
            signalled: ring.next_used(),
            ring,
            memory,
            kick,
            call,
        }
    }

    /// The next available chain. As long as there are some, the driver need not kick; when there are
    /// none, a kick will tell of the next one.
    ///
    /// # Errors
    /// When the ring's index ran away, or the ring cannot be read or written.
    pub fn next_chain(&mut self) -> Result<Option<Chain>, QueueError> {
        loop {
            self.disable_notifications()?;
            if let Some(chain) = self.pop()? {
                return Ok(Some(chain));
            }
            if !self.enable_notifications()? {
                return Ok(None);
            }
        }
    }

    /// Asks the driver not to kick, while the queue is being worked on.
    fn disable_notifications(&mut self) -> Result<(), QueueError> {
        if self.ring.ready() {
            self.ring.disable_notification(&*self.memory)?;
        }
        Ok(())
    }

    /// Asks the driver to kick again. Returns whether chains came in meanwhile, which must then be
    /// looked at, as no kick will tell of them.
    pub(crate) fn enable_notifications(&mut self) -> Result<bool, QueueError> {
        if !self.ring.ready() {
            return Ok(false);
        }
        Ok(self.ring.enable_notification(&*self.memory)?)
    }

    /// The next available chain, if any, whether the driver kicks or not.
    ///
    /// # Errors
    /// When the ring's index ran away.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if !self.ring.ready() {
            return Ok(None);
        }
        let memory = Arc::clone(&self.memory);
        Ok(self.ring.iter(memory)?.next())
    }

    /// Gives the last popped chain back to the available ring, to be popped again.
    pub fn unpop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Returns the chain that starts at descriptor `head` to the driver, with `written` bytes
    /// filled. The driver hears of it by [`Self::signal`].
    ///
    /// # Errors
    /// When the used ring cannot be written.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        Ok(self.ring.add_used(&*self.memory, head, written)?)
    }

    /// Returns several chains at once, in this order: who finds the first of them in the used ring
    /// finds all of them. A driver looks there whenever it likes, not only when it is signalled.
    ///
    /// # Errors
    /// When the used ring cannot be written.
    pub(crate) fn push_all(&mut self, chains: &[(u16, u32)]) -> Result<(), QueueError> {
        let Some((&(last, written), others)) = chains.split_last() else {
            return Ok(());
        };
        let (first, size) = (self.ring.next_used(), self.ring.size());
        for (offset, &(head, written)) in (0..).zip(others) {
            if head >= size {
                return Err(Error::InvalidDescriptorIndex.into());
            }
            // Section 2.7.8: an element is the chain's head and the length, 32 bits each.
            let slot = u64::from(first.wrapping_add(offset) % size);
            let element = u64::from(head) | u64::from(written) << 32;
            let at = GuestAddress(self.ring.used_ring() + 4 + 8 * slot);
            self.memory
                .write_slice(&element.to_le_bytes(), at)
                .map_err(Error::GuestMemory)?;
        }
        // The last element is written with the index, which makes all of them visible. There are at
        // most as many as the queue is long.
        self.ring
            .set_next_used(first.wrapping_add(others.len() as u16));
        self.push(last, written)
    }

    /// Interrupts the driver if there are used chains that it wants to hear of.
    ///
    /// # Errors
    /// When the used event cannot be read.
    pub fn signal(&mut self) -> Result<(), QueueError> {
        if self.wants_signal()? {
            // A full counter means that a signal is pending already.
            let _ = self.call.write(1);
        }
        Ok(())
    }

    /// Section 2.7.7.2. The library's own answer knows nothing of [`Self::push_all`].
    fn wants_signal(&mut self) -> Result<bool, QueueError> {
        let (old, new) = (self.signalled, self.ring.next_used());
        self.signalled = new;
        if old == new {
            return Ok(false);
        }
        // The used ring is written before the event is read.
        fence(Ordering::SeqCst);
        if !self.ring.event_idx_enabled() {
            return Ok(true);
        }
        let at = self.ring.avail_ring() + 4 + 2 * u64::from(self.ring.size());
        let event = self.memory.load(GuestAddress(at), Ordering::Relaxed);
        let event = u16::from_le(event.map_err(Error::GuestMemory)?);
        let after = new.wrapping_sub(event).wrapping_sub(1);
        Ok(after < new.wrapping_sub(old))
    }

    /// Has the event loop come back to the queue after others, as a kick of the driver's would.
    pub(crate) fn reschedule(&self) {
        // A full counter is a kick as well.
        let _ = self.kick.write(1);
    }

    /// Signalled by the driver when it made chains available. Non-blocking.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Interrupts the driver when it is written.
    pub fn call(&self) -> &EventFd {
        &self.call
    }

    /// The ring, for devices that hand it on to the kernel.
    pub fn ring(&self) -> &Queue {
        &self.ring
    }

    /// The memory that the ring and its buffers are in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
