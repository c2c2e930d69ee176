//! The requests that are not answered yet, in the order in which they came.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Their numbers.
#[derive(Default)]
pub(super) struct UnderWay {
    numbers: Mutex<Numbers>,
    ended: Condvar,
}

#[derive(Default)]
struct Numbers {
    next: u64,
    begun: Vec<u64>,
    /// How many threads wait for others' requests.
    waiting: usize,
}

impl UnderWay {
    /// One more, by its number.
    pub(super) fn begin(&self) -> u64 {
        let mut numbers = self.lock();
        let number = numbers.next;
        numbers.next += 1;
        numbers.begun.push(number);
        number
    }

    /// It is answered, or never will be.
    pub(super) fn end(&self, number: u64) {
        let mut numbers = self.lock();
        numbers.begun.retain(|&begun| begun != number);
        if numbers.waiting > 0 {
            self.ended.notify_all();
        }
    }

    /// Waits for all that began before this number. Those wait for none that began later.
    pub(super) fn wait_for_earlier(&self, number: u64) {
        let earlier = |numbers: &mut Numbers| numbers.begun.iter().any(|&begun| begun < number);
        let mut numbers = self.lock();
        numbers.waiting += 1;
        let waited = self.ended.wait_while(numbers, earlier);
        waited.unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // A panic leaves nothing half done.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
