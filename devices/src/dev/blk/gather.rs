//! Whether the driver is given time to queue more before its first request is worked on.
//!
//! A kick wakes the disk's thread. Where no other processor is free, it takes that of the guest, which then waits
//! with a single request made, though it has 31 more for the disk: each of them would cost a turn, with its exit, its two switches and
//! its interrupt. Giving the processor back once makes one turn of all of them. Where the guest has nothing
//! more to ask, it costs time, so it is tried only now and then there.

use std::thread;

/// After a turn that found nothing more, so many turns begin at once.
const BREAK: u32 = 32;

/// What the last turns had to take.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// So many turns begin at once.
    at_once: u32,
    /// This turn did not.
    waited: bool,
}

impl Gather {
    /// Call it with the first request taken, while the driver need not kick.
    pub(super) fn begin(&mut self) {
        self.waited = self.at_once == 0;
        if self.waited {
            thread::yield_now();
        } else {
            self.at_once -= 1;
        }
    }

    /// The turn took so many requests.
    pub(super) fn end(&mut self, taken: usize) {
        match taken {
            0 => {}
            1 if self.waited => self.at_once = BREAK,
            1 => {}
            _ => self.at_once = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these turns waited.
    fn waited(gather: &mut Gather, turns: &[usize]) -> usize {
        let mut count = 0;
        for &taken in turns {
            if taken > 0 {
                gather.begin();
                count += usize::from(gather.waited);
            }
            gather.end(taken);
        }
        count
    }

    #[test]
    fn one_at_a_time_is_seldom_waited_for() {
        let mut gather = Gather::default();
        assert_eq!(waited(&mut gather, &[1; 100]), 4);
    }

    #[test]
    fn many_at_once_are_waited_for() {
        let mut gather = Gather::default();
        assert_eq!(waited(&mut gather, &[32; 10]), 10);
        // Found without waiting: the next turn waits again.
        assert_eq!(waited(&mut gather, &[1, 1, 2, 1]), 2);
    }

    #[test]
    fn a_turn_without_requests_says_nothing() {
        let mut gather = Gather::default();
        assert_eq!(waited(&mut gather, &[0, 32, 0, 32]), 2);
    }
}
