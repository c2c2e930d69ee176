//! Channel reports: which subchannels have come and gone (Principles of Operation, chapter 17, channel report word).

use std::collections::VecDeque;

/// Reporting source: a subchannel. Recovery: its parameters are new, that is, look what it is now.
const SUBCHANNEL_INITIALIZED: u32 = 3 << 24 | 4 << 16;

/// Reports that wait for the guest, at most one of each subchannel.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: VecDeque<u8>,
    /// The guest was told that there are some, and has not seen the end of them.
    told: bool,
}

impl Reports {
    /// A subchannel is not what it was. Returns whether the guest has to be told that reports wait.
    pub(super) fn push(&mut self, number: u8) -> bool {
        if !self.waiting.contains(&number) {
            self.waiting.push_back(number);
        }
        !std::mem::replace(&mut self.told, true)
    }

    /// The next one.
    pub(super) fn next(&self) -> Option<u32> {
        let number = self.waiting.front()?;
        Some(SUBCHANNEL_INITIALIZED | u32::from(*number))
    }

    /// The guest has [`Self::next`].
    pub(super) fn stored(&mut self) {
        self.told = self.waiting.pop_front().is_some();
    }
}
