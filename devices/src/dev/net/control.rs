//! Commands of the control queue (virtio 1.3, section 5.1.6.5).

use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_ERR, VIRTIO_NET_OK,
};
use virtio_queue::QueueT;

use crate::Memory;
use crate::device::DeviceError;
use crate::queue::buffers::Buffers;
use crate::queue::turn::{Served, take_turn};
use crate::queue::{Chain, VirtQueue};

const ANNOUNCE: u8 = VIRTIO_NET_CTRL_ANNOUNCE as u8;
const ANNOUNCE_ACK: u8 = VIRTIO_NET_CTRL_ANNOUNCE_ACK as u8;
const MQ: u8 = VIRTIO_NET_CTRL_MQ as u8;
const PAIRS_SET: u8 = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8;
const GUEST_OFFLOADS: u8 = VIRTIO_NET_CTRL_GUEST_OFFLOADS as u8;
const OFFLOADS_SET: u8 = VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET as u8;

/// The longest command that is known, class and command included, and a byte more.
const MAX_COMMAND: usize = 2 + size_of::<u64>() + 1;

/// What a driver asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It has announced itself to the network.
    Announced,
    /// Packets go through so many queue pairs from now on.
    SetPairs(u16),
    /// It is spared what these features say, and nothing else.
    SetOffloads(u64),
}

impl Command {
    /// `None` for what is not offered, or has not the length that it must have.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let (&[class, command], data) = message.split_first_chunk()?;
        match (class, command) {
            (ANNOUNCE, ANNOUNCE_ACK) => data.is_empty().then_some(Self::Announced),
            (MQ, PAIRS_SET) => Some(Self::SetPairs(u16::from_le_bytes(data.try_into().ok()?))),
            (GUEST_OFFLOADS, OFFLOADS_SET) => {
                Some(Self::SetOffloads(u64::from_le_bytes(data.try_into().ok()?)))
            }
            _ => None,
        }
    }
}

/// Takes the commands in `queue`, and answers what `execute` says: whether it is done.
pub(super) fn serve(
    queue: &mut VirtQueue,
    mut execute: impl FnMut(Command) -> bool,
) -> Result<(), DeviceError> {
    let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
    take_turn(queue, |chain| {
        // A chain that is none is no command, which has no place for an answer either.
        let answered = answer(chain, &memory, size, &mut execute);
        Ok(Served::Used(answered.unwrap_or_default()))
    })?;
    Ok(())
}

/// Returns how many bytes the answer has.
fn answer(
    chain: Chain,
    memory: &Memory,
    size: u16,
    execute: &mut impl FnMut(Command) -> bool,
) -> Result<u32, DeviceError> {
    let mut message = Vec::with_capacity(MAX_COMMAND);
    for slice in Buffers::readable(chain.clone(), size)?.slices(memory, MAX_COMMAND)? {
        let start = message.len();
        message.resize(start + slice.len(), 0);
        slice.copy_to(message.get_mut(start..).unwrap_or_default());
    }
    let room = Buffers::writable(chain, size)?;
    let room = room.slices(memory, 1)?;
    let Some(ack) = room.first() else {
        return Ok(0);
    };
    let done = Command::parse(&message).is_some_and(execute);
    let status = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
    ack.copy_from(&[status as u8]);
    Ok(1)
}
