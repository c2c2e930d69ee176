//! Packets from a tap into the driver's buffers (virtio 1.3, sections 5.1.6.3 and 5.1.6.4).
//!
//! A packet is read straight into guest memory before its length is known. With MRG_RXBUF it may
//! take several chains, so that as many are gathered as the longest packet could need; those that
//! stay unused are for the next one. What finds no room goes into a spill of ours.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use virtio_queue::QueueT;

use super::drops::Drops;
use super::features::{GUEST_CSUM, MRG_RXBUF};
use super::pieces::{MAX_PIECES, Pieces};
use super::{HEADER, MAX_PACKET, Tap};
use crate::Memory;
use crate::device::DeviceError;
use crate::queue::VirtQueue;
use crate::queue::buffers::Buffers;

/// The most packets of one turn, and the most chains that are looked at for them.
const PACKETS: usize = 64;
const CHAINS: usize = 2048;

/// `struct virtio_net_hdr_v1`: flags, ..., num_buffers.
const FLAGS: usize = 0;
const NUM_BUFFERS: usize = HEADER - 2;

/// What a turn at a receive queue ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It goes on when the tap is readable.
    Idle,
    /// It goes on when the driver has made buffers available, of which a kick tells.
    Starved,
    /// It does not go on: the tap is of no use any more.
    Gone(Errno),
}

/// A receive queue.
pub(super) struct Receiver {
    mergeable: bool,
    checksums: bool,
    /// Taken out of the queue and not used yet, with the buffers of all of them and their bytes.
    chains: VecDeque<Chain>,
    pieces: Pieces,
    room: usize,
    spill: Vec<u8>,
    waiting: Option<Waiting>,
    drops: Drops,
}

struct Chain {
    head: u16,
    length: usize,
    pieces: usize,
}

/// A packet that has more bytes than there was room for.
#[derive(Clone, Copy)]
struct Waiting {
    length: usize,
    /// The last bytes of it, which are in the spill.
    spilled: usize,
}

impl Receiver {
    /// For a driver that has accepted `features`, with buffers in `memory`.
    pub(super) fn new(what: &str, features: u64, memory: &Arc<Memory>) -> Self {
        Self {
            mergeable: features & MRG_RXBUF != 0,
            checksums: features & GUEST_CSUM != 0,
            chains: VecDeque::new(),
            pieces: Pieces::new(Arc::clone(memory)),
            room: 0,
            spill: vec![0; MAX_PACKET + 1],
            waiting: None,
            drops: Drops::new(format!("{what}: packet to the guest")),
        }
    }

    /// Moves packets until one of the two sides has no more, or it is others' turn.
    pub(super) fn receive(
        &mut self,
        queue: &mut VirtQueue,
        tap: &Tap,
    ) -> Result<Received, DeviceError> {
        let received = self.take_packets(queue, tap)?;
        queue.signal()?;
        Ok(received)
    }

    fn take_packets(&mut self, queue: &mut VirtQueue, tap: &Tap) -> Result<Received, DeviceError> {
        let mut left = CHAINS;
        for _ in 0..PACKETS {
            self.gather(queue, &mut left)?;
            if left == 0 {
                queue.reschedule();
                return Ok(Received::Starved);
            }
            if let Some(waiting) = self.waiting {
                if !self.finish(waiting, queue)? {
                    return Ok(Received::Starved);
                }
                continue;
            }
            if self.chains.is_empty() {
                return Ok(Received::Starved);
            }
            match self.pieces.read(tap.as_raw_fd(), &mut self.spill) {
                Ok(0) => return Ok(Received::Gone(Errno::ENODEV)),
                Ok(length) => self.deliver(length, queue)?,
                Err(Errno::EAGAIN) => return Ok(Received::Idle),
                Err(Errno::EINTR) => {}
                // A packet that the kernel cannot describe by a header.
                Err(Errno::EINVAL) => self.drops.add(&Errno::EINVAL),
                Err(error) => return Ok(Received::Gone(error)),
            }
        }
        // The tap is still readable, or a packet waits; then the queue is looked at again.
        if self.waiting.is_some() {
            queue.reschedule();
            return Ok(Received::Starved);
        }
        Ok(Received::Idle)
    }

    /// Takes chains until there is room for the next packet, at most `left`.
    fn gather(&mut self, queue: &mut VirtQueue, left: &mut usize) -> Result<(), DeviceError> {
        let size = queue.ring().size();
        let enough = if self.mergeable { MAX_PACKET } else { 1 };
        while self.room < enough && *left > 0 && !self.is_full(size) {
            let Some(chain) = queue.next_chain()? else {
                break;
            };
            *left -= 1;
            let (head, before) = (chain.head_index(), self.pieces.count());
            let length = Buffers::writable(chain, size)
                .and_then(|buffers| self.pieces.append(buffers, MAX_PACKET));
            let pieces = self.pieces.count() - before;
            match length {
                Ok(length) if length > HEADER => {
                    self.room += length;
                    self.chains.push_back(Chain {
                        head,
                        length,
                        pieces,
                    });
                }
                // Section 5.1.6.3.1: a buffer is longer than the header. The driver gets it back.
                _ => {
                    self.pieces.truncate(before);
                    queue.push(head, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Whether all chains of a queue of `size` descriptors are taken already, or one more, which has
    /// at most as many buffers as the queue, could be too much for one system call.
    fn is_full(&self, size: u16) -> bool {
        let size = usize::from(size);
        self.chains.len() >= size || self.pieces.count() + size > MAX_PIECES
    }

    /// A packet has been read: it is the driver's, or waits, or is dropped.
    fn deliver(&mut self, length: usize, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        let spilled = length.saturating_sub(self.room);
        if length <= HEADER {
            self.drops.add(&"it has no bytes");
        } else if length > MAX_PACKET {
            // Perhaps longer still: what finds no room at all is cut off.
            self.drops.add(&"it is longer than any may be");
        } else if spilled == 0 {
            self.hand_over(length, queue)?;
        } else if self.mergeable {
            self.waiting = Some(Waiting { length, spilled });
        } else {
            self.drops
                .add(&"it is longer than the buffer that the driver has for it");
        }
        Ok(())
    }

    /// Hands over a packet that waits, if there is room for it. Returns whether it is settled: it is
    /// dropped if there never will be.
    fn finish(&mut self, waiting: Waiting, queue: &mut VirtQueue) -> Result<bool, DeviceError> {
        let Waiting { length, spilled } = waiting;
        if self.room < length && !self.is_full(queue.ring().size()) {
            return Ok(false);
        }
        self.waiting = None;
        if self.room < length {
            self.drops
                .add(&"it is longer than all buffers of the driver together");
            return Ok(true);
        }
        let tail = self.spill.get(..spilled).unwrap_or_default();
        self.pieces.write_at(length - spilled, tail);
        self.hand_over(length, queue)?;
        Ok(true)
    }

    /// Gives the driver the first `length` bytes of the chains, a packet.
    fn hand_over(&mut self, length: usize, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        let mut used = Vec::with_capacity(1);
        let (mut left, mut pieces) = (length, 0);
        while left > 0
            && let Some(chain) = self.chains.pop_front()
        {
            let written = left.min(chain.length);
            // At most MAX_PACKET.
            used.push((chain.head, written as u32));
            left -= written;
            self.room -= chain.length;
            pieces += chain.pieces;
        }
        // Section 5.1.6.4.1: num_buffers, and no flags for a driver that trusts no checksum of ours.
        // At most as many as the queue has.
        let buffers = (used.len() as u16).to_le_bytes();
        self.pieces.write_at(NUM_BUFFERS, &buffers);
        if !self.checksums {
            self.pieces.write_at(FLAGS, &[0]);
        }
        self.pieces.remove(pieces);
        Ok(queue.push_all(&used)?)
    }

    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.drops.count()
    }
}
