//! One turn at a queue: what a device on the event loop does with available chains.

use super::{Chain, VirtQueue};
use crate::device::DeviceError;

/// How many chains one turn serves; then it is another device's turn, so that a guest that keeps
/// one queue full does not keep the loop from its other work.
const CHAINS: usize = 64;

/// What the device did with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It is done, with so many bytes written into it.
    Used(u32),
    /// The device works on it, and returns it by [`VirtQueue::push`] later. The turn goes on.
    Taken,
    /// The device holds it, and returns it by [`VirtQueue::push`] later. The turn ends.
    Held,
    /// It stays in the queue for later. The turn ends.
    Refused,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All chains are served; a kick tells of the next one.
    Empty,
    /// There may be more chains: the queue was kicked, so that the next turn comes.
    Yielded,
    /// The device waits for something else than chains, and hears of no kicks meanwhile.
    Waiting,
}

/// Serves the available chains of `queue` by `serve`, and signals the driver once for all of them.
///
/// # Errors
/// Those of `serve`, and when the driver broke the queue.
pub(crate) fn take_turn(
    queue: &mut VirtQueue,
    mut serve: impl FnMut(Chain) -> Result<Served, DeviceError>,
) -> Result<Turn, DeviceError> {
    let mut left = CHAINS;
    let turn = loop {
        let Some(chain) = queue.next_chain()? else {
            break Turn::Empty;
        };
        if left == 0 {
            queue.unpop();
            queue.reschedule();
            break Turn::Yielded;
        }
        left -= 1;
        let head = chain.head_index();
        match serve(chain)? {
            Served::Used(written) => queue.push(head, written)?,
            Served::Taken => {}
            Served::Held => break Turn::Waiting,
            Served::Refused => {
                queue.unpop();
                break Turn::Waiting;
            }
        }
    };
    queue.signal()?;
    Ok(turn)
}
