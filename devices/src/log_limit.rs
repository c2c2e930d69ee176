//! A limit for log messages that a guest can cause.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many messages one source may log.
const MAX_MESSAGES: u32 = 8;

/// Counts the messages of one source; the log of a VM stays short however its guest behaves.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(AtomicU32);

impl LogLimit {
    /// Whether one more message may be logged.
    pub(crate) fn allows(&self) -> bool {
        let count = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < MAX_MESSAGES).then_some(n + 1)
            });
        count.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_silent_after_a_few_messages() {
        let limit = LogLimit::default();
        let allowed = (0..100).filter(|_| limit.allows()).count();
        assert_eq!(allowed, 8);
    }
}
