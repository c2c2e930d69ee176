//! Interrupt routes: their numbers, and where each of them leads.

use std::collections::BTreeMap;
use std::io;

use devices::fabric::Gsi;

/// The routes of a VM.
pub(super) struct Routes<T> {
    targets: BTreeMap<Gsi, T>,
    next: u32,
    free: Vec<Gsi>,
    end: u32,
}

impl<T: Copy + PartialEq> Routes<T> {
    /// Of the numbers from `first` on; KVM has `end` in all, or a negative number is an error of its.
    pub(super) fn new(first: u32, end: i32) -> Self {
        Self {
            targets: BTreeMap::new(),
            next: first,
            free: Vec::new(),
            end: end.try_into().unwrap_or(0),
        }
    }

    pub(super) fn allocate(&mut self) -> io::Result<Gsi> {
        if let Some(gsi) = self.free.pop() {
            return Ok(gsi);
        }
        if self.next >= self.end {
            return Err(io::Error::other("KVM has no interrupt routes left"));
        }
        let gsi = Gsi(self.next);
        self.next += 1;
        Ok(gsi)
    }

    pub(super) fn free(&mut self, gsi: Gsi) {
        // Its target stays in KVM's table until the next one replaces it.
        self.free.push(gsi);
    }

    /// Has a route lead to `target`: `set` gives KVM all of them, if they have changed. That waits for all vCPUs to leave
    /// the old table.
    pub(super) fn set(
        &mut self,
        gsi: Gsi,
        target: T,
        set: impl FnOnce(&mut dyn Iterator<Item = (Gsi, T)>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.targets.get(&gsi) == Some(&target) {
            return Ok(());
        }
        let others = self.targets.iter().map(|(gsi, target)| (*gsi, *target));
        let others = others.filter(|(other, _)| *other != gsi);
        set(&mut others.chain([(gsi, target)]))?;
        self.targets.insert(gsi, target);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_come_to_an_end() {
        let mut routes = Routes::<u8>::new(24, 26);
        assert_eq!(routes.allocate().unwrap(), Gsi(24));
        assert_eq!(routes.allocate().unwrap(), Gsi(25));
        assert!(routes.allocate().is_err());
        routes.free(Gsi(24));
        assert_eq!(routes.allocate().unwrap(), Gsi(24));
        assert!(Routes::<u8>::new(24, -1).allocate().is_err());
    }

    #[test]
    fn the_whole_table_is_set_when_it_has_changed() {
        let mut routes = Routes::new(0, 9);
        let mut tables = Vec::new();
        for (gsi, target) in [(1, 'a'), (2, 'b'), (2, 'b'), (1, 'c')] {
            let set = |all: &mut dyn Iterator<Item = _>| {
                tables.push(all.collect::<Vec<_>>());
                Ok(())
            };
            routes.set(Gsi(gsi), target, set).unwrap();
        }
        let refused = routes.set(Gsi(3), 'd', |_| Err(io::ErrorKind::Other.into()));
        assert!(refused.is_err());
        let mut count = 0;
        let set = |all: &mut dyn Iterator<Item = _>| {
            count = all.count();
            Ok(())
        };
        routes.set(Gsi(3), 'd', set).unwrap();
        assert_eq!(count, 3);
        let expected = [
            vec![(Gsi(1), 'a')],
            vec![(Gsi(1), 'a'), (Gsi(2), 'b')],
            vec![(Gsi(2), 'b'), (Gsi(1), 'c')],
        ];
        assert_eq!(tables, expected);
    }
}
