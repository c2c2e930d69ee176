//! Packets from the driver's buffers into a tap (virtio 1.3, section 5.1.6.2).

use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use virtio_queue::QueueT;

use super::drops::Drops;
use super::pieces::Pieces;
use super::{MAX_PACKET, Tap};
use crate::Memory;
use crate::device::DeviceError;
use crate::queue::buffers::Buffers;
use crate::queue::turn::{Served, Turn, take_turn};
use crate::queue::{Chain, VirtQueue};

/// A transmit queue.
pub(super) struct Transmitter {
    pieces: Pieces,
    drops: Drops,
}

impl Transmitter {
    /// For buffers in `memory`.
    pub(super) fn new(what: &str, memory: &Arc<Memory>) -> Self {
        Self {
            pieces: Pieces::new(Arc::clone(memory)),
            drops: Drops::new(format!("{what}: packet of the guest")),
        }
    }

    /// Moves packets until there are no more, the tap takes no more (unless the packets are not to
    /// `wait` for it), or it is others' turn. What the host refuses is lost, as on any network.
    pub(super) fn transmit(
        &mut self,
        queue: &mut VirtQueue,
        tap: &Tap,
        wait: bool,
    ) -> Result<Turn, DeviceError> {
        let size = queue.ring().size();
        take_turn(queue, |chain| match self.send(chain, size, tap) {
            Err(Errno::EAGAIN) if wait => Ok(Served::Refused),
            Err(error) => {
                self.drops.add(&error);
                Ok(Served::Used(0))
            }
            Ok(()) => Ok(Served::Used(0)),
        })
    }

    fn send(&mut self, chain: Chain, size: u16, tap: &Tap) -> nix::Result<()> {
        self.pieces.truncate(0);
        let length = Buffers::readable(chain, size)
            .and_then(|buffers| self.pieces.append(buffers, MAX_PACKET + 1))
            .map_err(|_| Errno::EFAULT)?;
        match length {
            // Nothing would be written without an error.
            0 => return Err(Errno::EINVAL),
            1..=MAX_PACKET => {}
            _ => return Err(Errno::EMSGSIZE),
        }
        loop {
            match self.pieces.write(tap.as_raw_fd()) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.drops.count()
    }
}
