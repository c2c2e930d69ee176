//! The PCI bus of the machine: one host bridge, one bus, functions that come and go, but never move.

mod config_header;
mod root;

use std::ops::Range;

pub use config_header::{ConfigHeader, Identity, NoRoom};
pub use root::{PciRoot, SlotsTaken};

/// One function on the bus (PCI Local Bus 3.0).
///
/// Called by vCPU threads, one at a time; must not wait for anything.
pub trait PciFunction: Send {
    /// Fills `data` (1, 2 or 4 bytes, not crossing a double word) from configuration space.
    fn config_read(&mut self, offset: usize, data: &mut [u8]);

    /// Takes a write of `data` (1, 2 or 4 bytes, not crossing a double word) to configuration space.
    fn config_write(&mut self, offset: usize, data: &[u8]);

    /// What reads of configuration space find until it is written to again, all ones behind it; unset if a read does
    /// something.
    fn config(&self) -> Option<&[u8]>;

    /// The guest addresses of the function's memory, here called its BAR; always the same.
    fn bar(&self) -> Option<Range<u64>> {
        None
    }

    /// The function is off the bus, and nothing above is called any more: lets go of what it has bound.
    fn removed(&mut self) {}

    /// Whether the guest has switched memory decoding on.
    fn decodes_memory(&self) -> bool {
        false
    }

    /// Fills `data` from the BAR; the range lies within the BAR. Reads of nothing are all ones.
    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        let _ = offset;
        data.fill(0xff);
    }

    /// Takes a write to the BAR; the range lies within the BAR.
    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }
}

/// Memory in which the guest reads configuration space by itself. What it writes there still comes to [`PciRoot`].
pub trait ConfigMemory: Send + Sync {
    /// Shows bytes from `offset` of the ECAM window on; nothing happens past the end of the memory, where the guest's reads
    /// come to [`PciRoot`]. One thread at a time.
    fn show(&self, offset: u64, bytes: &[u8]);

    /// From now on, all reads come to [`PciRoot`]. Once.
    fn give_up(&self);
}
