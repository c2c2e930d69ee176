//! Which bytes of a file are locked.

use std::collections::BTreeMap;

/// The last byte that a lock can have: to there means to the end of the file, wherever it is.
pub(super) const LAST: u64 = i64::MAX as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Which others may have as well.
    Read,
    Write,
}

/// From a byte to another, both included, and at most [`LAST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    pub(super) const ALL: Self = Self {
        start: 0,
        end: LAST,
    };
}

/// The locks of one owner on one file, as the kernel keeps them: neighbours of one kind are one lock.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, (u64, Kind)>);

impl Ranges {
    /// Locks a range, or unlocks it.
    pub(super) fn set(&mut self, range: Range, kind: Option<Kind>) {
        self.cut(range);
        let Some(kind) = kind else {
            return;
        };
        let Range { mut start, mut end } = range;
        if let Some((&before, &(last, same))) = self.0.range(..start).next_back()
            && last + 1 == start
            && same == kind
        {
            start = before;
        }
        if let Some(&(last, same)) = self.0.get(&(end + 1))
            && same == kind
        {
            self.0.remove(&(end + 1));
            end = last;
        }
        self.0.insert(start, (end, kind));
    }

    /// Unlocks a range; what of a lock lies outside stays.
    fn cut(&mut self, Range { start, end }: Range) {
        let touched = self.0.range(..=end).rev();
        let touched: Vec<_> = touched
            .map(|(&first, &(last, kind))| (first, last, kind))
            .take_while(|&(_, last, _)| last >= start)
            .collect();
        for (first, last, kind) in touched {
            self.0.remove(&first);
            if first < start {
                self.0.insert(first, (start - 1, kind));
            }
            if last > end {
                self.0.insert(end + 1, (last, kind));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Range, Kind)> {
        let range = |(&start, &(end, kind)): (&u64, &(u64, Kind))| (Range { start, end }, kind);
        self.0.iter().map(range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small numbers, so that locks meet, and the last ones, where sums might overflow.
    fn range() -> impl Strategy<Value = Range> {
        let byte = || prop_oneof![4 => 0..24_u64, 1 => LAST - 3..=LAST];
        (byte(), byte()).prop_map(|(one, other)| Range {
            start: one.min(other),
            end: one.max(other),
        })
    }

    fn kind() -> impl Strategy<Value = Option<Kind>> {
        prop_oneof![Just(None), Just(Some(Kind::Read)), Just(Some(Kind::Write))]
    }

    proptest! {
        /// Byte by byte they are what was set last, and there are no more of them than it takes.
        #[test]
        fn they_are_what_was_set(changes in prop::collection::vec((range(), kind()), 0..30)) {
            let mut ranges = Ranges::default();
            for &(range, kind) in &changes {
                ranges.set(range, kind);
            }
            let inside = |byte: u64, range: Range| range.start <= byte && byte <= range.end;
            for byte in (0..30).chain(LAST - 5..=LAST) {
                let set = changes.iter().rev().find(|(range, _)| inside(byte, *range));
                let found: Vec<_> = ranges.iter().filter(|(range, _)| inside(byte, *range)).collect();
                let found = found.first().map(|(_, kind)| *kind);
                prop_assert_eq!(found, set.and_then(|(_, kind)| *kind), "{}", byte);
            }
            let all: Vec<_> = ranges.iter().collect();
            for pair in all.windows(2) {
                let [(before, one), (after, other)] = pair else { unreachable!() };
                prop_assert!(before.end < after.start);
                prop_assert!(before.end + 1 < after.start || one != other, "two are one: {:?}", all);
            }
        }
    }
}
