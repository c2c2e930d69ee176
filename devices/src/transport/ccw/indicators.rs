//! The bits by which a driver learns what a device wants (virtio 1.3, section 4.3.2.6).

use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::{GuestAddress, GuestMemory, VolatileMemory};

use crate::Memory;
use crate::fabric::AdapterInterrupt;

/// Classic indicators: one for each of so many queues, in 8 bytes that are a big-endian number.
pub(super) const CLASSIC: u16 = 64;
/// Bytes of classic indicators, and of those of configuration changes.
const CLASSIC_BYTES: usize = 8;
/// The summary indicator is a byte to the driver; this bit of it is set.
const SUMMARY_BIT: u8 = 7;

/// How the driver hears of queues.
pub(super) enum Indicators {
    /// Not at all.
    None,
    /// By bits from this guest address on, and an interruption of the subchannel.
    Classic(u64),
    /// By bits anywhere, a summary of them, and an adapter interruption.
    Adapter(Adapter),
}

/// The driver's area of two-stage indicators.
pub(super) struct Adapter {
    class: u8,
    summary: u64,
    /// Address, and the bit of queue 0.
    indicators: (u64, u64),
}

impl Adapter {
    /// From a `virtio_thinint_area`; unset if its bits for `queues` are not all in memory, or there is no such class.
    pub(super) fn new(area: &[u8; 25], queues: u16, memory: &Memory) -> Option<Self> {
        let word = |at: usize| {
            let bytes = area.iter().skip(at).take(8);
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let adapter = Self {
            class: area[24],
            summary: word(0),
            indicators: (word(8), word(16)),
        };
        let (address, first) = adapter.indicators;
        let last = first.checked_add(queues.saturating_sub(1).into())?;
        let begin = address.checked_add(first / 8)?;
        // Less than a quarter of a mebibyte.
        let bytes = (last / 8 - first / 8 + 1) as usize;
        let valid = adapter.class < 8
            && memory.check_range(GuestAddress(adapter.summary), 1)
            && memory.check_range(GuestAddress(begin), bytes);
        valid.then_some(adapter)
    }

    /// The bits of a queue.
    pub(super) fn of_queue(&self, index: u16) -> AdapterInterrupt {
        let (address, first) = self.indicators;
        let bit = first + u64::from(index);
        AdapterInterrupt {
            class: self.class,
            summary: (self.summary, SUMMARY_BIT),
            indicator: (address + bit / 8, (bit % 8) as u8),
        }
    }
}

/// Whether classic indicators can be at `address`.
pub(super) fn is_classic(memory: &Memory, address: u64) -> bool {
    memory.check_range(GuestAddress(address), CLASSIC_BYTES)
}

/// Sets a classic indicator. Returns whether it could be.
pub(super) fn set_classic(memory: &Memory, indicators: u64, bit: u32) -> bool {
    let byte = u64::from(7 - bit / 8 % 8);
    let Ok(slice) = memory.get_slice(GuestAddress(indicators.saturating_add(byte)), 1) else {
        return false;
    };
    // The guest clears others at the same time.
    let set = slice
        .get_atomic_ref::<AtomicU8>(0)
        .map(|byte| byte.fetch_or(1 << (bit % 8), Ordering::SeqCst));
    set.is_ok()
}
