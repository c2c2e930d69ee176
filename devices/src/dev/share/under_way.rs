//! The requests that have left the order in which they came, because they are slow.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Which of them are not answered yet.
#[derive(Default)]
pub(super) struct UnderWay {
    numbers: Mutex<Numbers>,
    ended: Condvar,
}

#[derive(Default)]
struct Numbers {
    next: u64,
    begun: BTreeSet<u64>,
}

impl UnderWay {
    /// One more, by its number.
    pub(super) fn begin(&self) -> u64 {
        let mut numbers = self.lock();
        let number = numbers.next;
        numbers.next += 1;
        numbers.begun.insert(number);
        number
    }

    /// It is answered, or nobody will answer it.
    pub(super) fn end(&self, number: u64) {
        self.lock().begun.remove(&number);
        self.ended.notify_all();
    }

    /// Waits for all that began before this number. Those wait for none that began later.
    pub(super) fn wait_for_earlier(&self, number: u64) {
        let earlier = |numbers: &mut Numbers| numbers.begun.range(..number).next().is_some();
        let waited = self.ended.wait_while(self.lock(), earlier);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Each change is a single one.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
