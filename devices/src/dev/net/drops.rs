//! Packets that get lost.

use std::fmt;

use tracing::debug;

use crate::log_limit::LogLimit;

/// Counts them for one queue; says why for the first ones.
#[derive(Debug)]
pub(super) struct Drops {
    /// For messages: "eth0: packet 0 to the guest".
    what: String,
    count: u64,
    limit: LogLimit,
}

impl Drops {
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            count: 0,
            limit: LogLimit::default(),
        }
    }

    pub(super) fn add(&mut self, reason: &dyn fmt::Display) {
        self.count += 1;
        if self.limit.allows() {
            debug!("virtio net {} lost: {reason}", self.what);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        if self.count > 0 {
            debug!("virtio net {} lost: {} in all", self.what, self.count);
        }
    }
}
