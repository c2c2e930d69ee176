//! Who in the guest has which locks of fcntl(2).
//!
//! The host takes two descriptions of a file for two owners. So each owner on each file has one of its
//! own, from its first lock to when the guest says that it has closed the file.

use std::collections::BTreeMap;
use std::fs::File;

use nix::errno::Errno;

use super::host::{self, Access};
use super::ranges::{Kind, Range, Ranges};
use super::request::{Found, Lock};

/// The host's kernel has each lock in its memory.
const MAX_LOCKS: usize = 1 << 14;

/// On which file, and the guest's number for the owner.
type Key = (u64, u64);

pub(super) struct Owners {
    known: BTreeMap<Key, Owner>,
    /// The locks of all of them.
    locks: usize,
    /// As many descriptions there may be.
    max: usize,
}

struct Owner {
    /// Has the locks.
    file: File,
    access: Access,
    ranges: Ranges,
    /// The guest's handle by which the last one came.
    handle: u64,
    /// The guest's process that took it.
    pid: u32,
    /// Requests that wait for a lock of this description.
    waits: usize,
}

impl Owners {
    pub(super) fn new(max: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            locks: 0,
            max,
        }
    }

    /// Sets `lock`, or ends it, if nobody is in the way. `open` gives a new description of the file.
    pub(super) fn set(
        &mut self,
        lock: &Lock,
        open: impl FnOnce() -> Result<File, Errno>,
    ) -> Result<(), Errno> {
        let key = (lock.node, lock.owner);
        match lock.kind {
            Some(kind) => self.provide(key, kind, open)?,
            None if !self.known.contains_key(&key) => return Ok(()),
            None => {}
        }
        // In the middle of a lock, another makes three of it.
        if self.locks + 2 > MAX_LOCKS && !(lock.kind.is_none() && lock.range == Range::ALL) {
            return Err(Errno::ENOLCK);
        }
        self.settle(lock)
    }

    /// Sets `lock` for an owner that is known.
    pub(super) fn settle(&mut self, lock: &Lock) -> Result<(), Errno> {
        let owner = self.known.get_mut(&(lock.node, lock.owner));
        let owner = owner.ok_or(Errno::EBADF)?;
        host::set(&owner.file, lock.range, lock.kind)?;
        let before = owner.ranges.len();
        owner.ranges.set(lock.range, lock.kind);
        self.locks = self.locks + owner.ranges.len() - before;
        if lock.kind.is_some() {
            (owner.handle, owner.pid) = (lock.handle, lock.pid);
        }
        Ok(())
    }

    /// Makes sure that the owner has a description that is good enough for a lock.
    fn provide(
        &mut self,
        key: Key,
        kind: Kind,
        open: impl FnOnce() -> Result<File, Errno>,
    ) -> Result<(), Errno> {
        if let Some(owner) = self.known.get_mut(&key) {
            if owner.access.allows(kind) {
                return Ok(());
            }
            return owner.change_description(open()?);
        }
        if self.known.len() >= self.max {
            self.known.retain(|_, owner| owner.is_needed());
        }
        if self.known.len() >= self.max {
            return Err(Errno::ENOLCK);
        }
        self.known.insert(key, Owner::new(open()?)?);
        Ok(())
    }

    /// A lock that is in the way of `lock`; the answer for an owner that has none comes by `file`.
    pub(super) fn test(&self, lock: &Lock, file: &File) -> Result<Found, Errno> {
        let Some(kind) = lock.kind else {
            return Err(Errno::EINVAL);
        };
        let owner = self.known.get(&(lock.node, lock.owner));
        let file = owner.map_or(file, |owner| &owner.file);
        let found = host::test(file, lock.range, kind)?;
        Ok(found.map(|(range, kind)| (range, kind, self.holder(lock, (range, kind)))))
    }

    /// The guest's process that has what is in the way of `lock`, 0 if none of its has.
    fn holder(&self, lock: &Lock, found: (Range, Kind)) -> u32 {
        let mut others = self.on(lock.node).filter(|(key, _)| key.1 != lock.owner);
        let holder = others.find(|(_, owner)| owner.ranges.iter().any(|has| has == found));
        holder.map_or(0, |(_, owner)| owner.pid)
    }

    /// Announces a request that will wait, and returns another descriptor of the owner's description.
    pub(super) fn begin_wait(&mut self, lock: &Lock) -> Result<File, Errno> {
        let owner = self.known.get_mut(&(lock.node, lock.owner));
        let owner = owner.ok_or(Errno::EBADF)?;
        let file = owner.file.try_clone().map_err(|_| Errno::ENOLCK)?;
        owner.waits += 1;
        Ok(file)
    }

    pub(super) fn end_wait(&mut self, lock: &Lock) {
        if let Some(owner) = self.known.get_mut(&(lock.node, lock.owner)) {
            owner.waits = owner.waits.saturating_sub(1);
        }
    }

    /// A description of the guest's is gone, and the locks that it owns, if any. Those of processes are
    /// gone before, as each has closed the file.
    pub(super) fn released(&mut self, node: u64, handle: u64) {
        let by_handle = self.on(node).filter(|(_, owner)| owner.handle == handle);
        let keys: Vec<Key> = by_handle.map(|(key, _)| *key).collect();
        keys.into_iter()
            .for_each(|(node, owner)| self.let_go(node, owner));
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.locks = 0;
    }

    fn on(&self, node: u64) -> impl Iterator<Item = (&Key, &Owner)> {
        self.known.range((node, 0)..=(node, u64::MAX))
    }

    /// An owner has closed a file: all its locks there end (fcntl(2)).
    pub(super) fn let_go(&mut self, node: u64, owner: u64) {
        let key = (node, owner);
        let Some(mut owner) = self.known.remove(&key) else {
            return;
        };
        self.locks -= owner.ranges.len();
        if owner.waits > 0 {
            // What is waited for will be this description's. Nobody can be in the way of an end.
            let _ = host::set(&owner.file, Range::ALL, None);
            owner.ranges = Ranges::default();
            self.known.insert(key, owner);
        }
    }
}

impl Owner {
    fn new(file: File) -> Result<Self, Errno> {
        Ok(Self {
            access: Access::of(&file)?,
            file,
            ranges: Ranges::default(),
            handle: 0,
            pid: 0,
            waits: 0,
        })
    }

    fn is_needed(&self) -> bool {
        self.waits > 0 || self.ranges.len() > 0
    }

    /// Takes another description with more rights. The locks are in both for a moment, which is why they have
    /// to be read locks: those of a description that cannot be written to are.
    fn change_description(&mut self, file: File) -> Result<(), Errno> {
        let access = Access::of(&file)?;
        let movable = self.ranges.iter().all(|(_, kind)| kind == Kind::Read);
        if self.waits > 0 || !movable || (self.ranges.len() > 0 && !access.read) {
            return Err(Errno::ENOLCK);
        }
        for (range, kind) in self.ranges.iter() {
            host::set(&file, range, Some(kind))?;
        }
        (self.file, self.access) = (file, access);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each second byte, so that no two are one.
    #[test]
    fn locks_are_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut owners = Owners::new(1);
        let mut set = |byte: Option<u64>, kind| {
            let lock = Lock {
                node: 1,
                handle: 1,
                owner: 1,
                pid: 1,
                range: byte.map_or(Range::ALL, |byte| Range {
                    start: byte,
                    end: byte,
                }),
                kind,
                flock: false,
            };
            owners.set(&lock, || file.reopen().map_err(|_| Errno::EIO))
        };
        let taken = (0..).take_while(|n| set(Some(2 * n), Some(Kind::Read)).is_ok());
        assert_eq!(taken.count(), MAX_LOCKS - 1);
        assert_eq!(set(Some(4), None), Err(Errno::ENOLCK));
        set(None, None).unwrap();
        set(Some(4), Some(Kind::Read)).unwrap();
    }
}
