//! In which order the tables of a qcow2 image reach stable storage (QEMU's docs/interop/qcow2.txt), so that it is sound
//! whenever power fails or the monitor dies: nothing leads to a cluster that is not counted, or not yet what it is to be.
//!
//! The crate writes in that order, but does not wait for what it has written. And it enters a new table of the second level
//! in that of the first at once, when its count is in memory only.

// A storage of the crate's has unsafe functions: what they ask of the caller is passed on.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageExt, StorageOpenOptions};

/// QEMU opens no image whose first table is larger.
const MAX_FIRST_TABLE: u64 = 32 << 20;
/// What all versions of the header have that counts here.
const HEADER: usize = 60;
/// Where a table is, in an entry of the first one.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// A storage with an image in it.
#[derive(Debug)]
pub struct Ordered<S> {
    inner: S,
    /// Whether power may fail: if not, the order of writing is enough.
    durable: bool,
    /// Nothing for what is only read.
    tables: Option<Mutex<Tables>>,
}

/// What a part of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The header and the table of reference counts.
    Root,
    /// The first level of the guest's clusters.
    First,
    /// The second level.
    Second,
    /// Data, and reference counts.
    Rest,
}

#[derive(Debug)]
struct Tables {
    cluster_bits: u32,
    counts: Range<u64>,
    first: Range<u64>,
    /// The clusters of the second level, sorted.
    second: Vec<u64>,
    /// Entries of the first table that the crate has written, and the file does not have.
    held: BTreeMap<u64, Vec<u8>>,
    unstable: Unstable,
}

/// What has been written and may not be on stable storage.
#[derive(Debug, Default)]
struct Unstable {
    second: bool,
    rest: bool,
}

impl<S: Storage> Ordered<S> {
    /// An image that is written to. Without `durable` nothing waits for stable storage.
    ///
    /// # Errors
    /// When it cannot be read, or its first table is too large.
    pub fn new(inner: S, durable: bool) -> io::Result<Self> {
        Ok(Self {
            tables: Some(Mutex::new(Tables::read(&inner)?)),
            inner,
            durable,
        })
    }

    /// An image that is only read.
    pub fn read_only(inner: S) -> Self {
        Self {
            inner,
            durable: false,
            tables: None,
        }
    }

    fn tables(&self) -> Option<MutexGuard<'_, Tables>> {
        let tables = self.tables.as_ref()?;
        Some(tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until everything written is stable.
    fn settle(&self, tables: &mut Tables) -> io::Result<()> {
        if self.durable {
            self.inner.sync()?;
        }
        tables.unstable = Unstable::default();
        Ok(())
    }

    /// Writes what `write` does at `range`, after what has to be stable before.
    fn write_at(
        &self,
        range: Range<u64>,
        write: impl FnOnce(&S) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(mut tables) = self.tables() else {
            return write(&self.inner);
        };
        let part = tables.part(&range);
        if tables.waits(part) {
            self.settle(&mut tables)?;
        }
        write(&self.inner)?;
        match part {
            Part::Second => tables.unstable.second = true,
            Part::First | Part::Rest => tables.unstable.rest = true,
            Part::Root => {
                self.settle(&mut tables)?;
                tables.moved(&self.inner)?;
            }
        }
        Ok(())
    }
}

impl Tables {
    fn read(storage: &impl Storage) -> io::Result<Self> {
        let mut header = [0; HEADER];
        storage.read(&mut header[..], 0)?;
        let field = |at: usize, size: usize| {
            let bytes = header.iter().skip(at).take(size);
            bytes.fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let cluster_bits = field(20, 4) as u32;
        let first = (field(40, 8), field(36, 4) * 8);
        let counts = (field(48, 8), field(56, 4).checked_shl(cluster_bits));
        let range = |(start, length): (u64, u64)| Some(start..start.checked_add(length)?);
        let counts = counts.1.and_then(|length| range((counts.0, length)));
        let (Some(first), Some(counts), 9..=21) = (range(first), counts, cluster_bits) else {
            return Err(io::Error::other("its header is broken"));
        };
        if first.end - first.start > MAX_FIRST_TABLE {
            return Err(io::Error::other("its first table is too large"));
        }
        let mut entries = vec![0; (first.end - first.start) as usize];
        storage.read(&mut entries[..], first.start)?;
        let mut tables = Self {
            cluster_bits,
            counts,
            first,
            second: offsets(&entries).map(|at| at >> cluster_bits).collect(),
            held: BTreeMap::new(),
            unstable: Unstable::default(),
        };
        tables.second.sort_unstable();
        tables.second.dedup();
        Ok(tables)
    }

    /// The header has been written: it may lead to other tables, which are complete.
    fn moved(&mut self, storage: &impl Storage) -> io::Result<()> {
        let new = Self::read(storage)?;
        let held = if new.first == self.first {
            std::mem::take(&mut self.held)
        } else {
            BTreeMap::new()
        };
        let second = std::mem::take(&mut self.second);
        *self = Self { held, ..new };
        second.into_iter().for_each(|cluster| self.add(cluster));
        Ok(())
    }

    fn part(&self, range: &Range<u64>) -> Part {
        let meets = |other: &Range<u64>| range.start < other.end && other.start < range.end;
        if range.start >> self.cluster_bits == 0 || meets(&self.counts) {
            Part::Root
        } else if meets(&self.first) {
            Part::First
        } else if self.has(range.start >> self.cluster_bits).is_ok() {
            Part::Second
        } else {
            Part::Rest
        }
    }

    /// Whether a part is to be written only when what was written before is stable: entries, after what they lead to and its
    /// counts; new data and lower counts, after the entries that led there.
    fn waits(&self, part: Part) -> bool {
        match part {
            Part::Root => self.unstable.second || self.unstable.rest,
            Part::First | Part::Second => self.unstable.rest,
            Part::Rest => self.unstable.second,
        }
    }

    fn has(&self, cluster: u64) -> Result<usize, usize> {
        self.second.binary_search(&cluster)
    }

    fn add(&mut self, cluster: u64) {
        if let Err(at) = self.has(cluster) {
            self.second.insert(at, cluster);
        }
    }

    /// Keeps entries of the first table until all counts are written.
    fn hold(&mut self, offset: u64, entries: Vec<u8>) {
        for at in offsets(&entries) {
            self.add(at >> self.cluster_bits);
        }
        self.held.insert(offset, entries);
    }
}

/// Where the tables are that entries of the first one lead to.
fn offsets(entries: &[u8]) -> impl Iterator<Item = u64> {
    let (entries, _) = entries.as_chunks();
    let offsets = entries
        .iter()
        .map(|&entry| u64::from_be_bytes(entry) & OFFSET);
    offsets.filter(|&offset| offset != 0)
}

impl<S: Storage> Storage for Ordered<S> {
    fn open(options: StorageOpenOptions) -> io::Result<Self> {
        S::open(options).map(Self::read_only)
    }

    fn mem_align(&self) -> usize {
        self.inner.mem_align()
    }

    fn req_align(&self) -> usize {
        self.inner.req_align()
    }

    fn zero_align(&self) -> usize {
        self.inner.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.inner.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.inner.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.inner.get_filename()
    }

    /// The crate reads the first table only when it opens the image: nothing is held then.
    unsafe fn pure_readv(&self, data: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: as the caller has promised; alignments and range blockers are the inner storage's.
        unsafe { self.inner.pure_readv(data, offset) }
    }

    unsafe fn pure_writev(&self, data: IoVector<'_>, offset: u64) -> io::Result<()> {
        let end = offset.checked_add(data.len());
        let range = offset..end.ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(mut tables) = self.tables() {
            let first = &tables.first;
            if first.start <= range.start && range.start < first.end {
                // Not longer than a cluster, or the table.
                let mut entries = vec![0; data.len() as usize];
                data.copy_into_slice(&mut entries);
                tables.hold(offset, entries);
                return Ok(());
            }
        }
        self.write_at(range, |inner| {
            // SAFETY: as the caller has promised; alignments and range blockers are the inner storage's.
            unsafe { inner.pure_writev(data, offset) }
        })
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let range = offset..offset.saturating_add(length);
        self.write_at(range, |inner| {
            // SAFETY: as the caller has promised; alignments and range blockers are the inner storage's.
            unsafe { inner.pure_write_zeroes(offset, length) }
        })
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let range = offset..offset.saturating_add(length);
        self.write_at(range, |inner| {
            // SAFETY: as the caller has promised; alignments and range blockers are the inner storage's.
            unsafe { inner.pure_write_allocated_zeroes(offset, length) }
        })
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let range = offset..offset.saturating_add(length);
        self.write_at(range, |inner| {
            // SAFETY: as the caller has promised; alignments and range blockers are the inner storage's.
            unsafe { inner.pure_discard(offset, length) }
        })
    }

    /// Called when the crate has written all that it had in memory.
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()?;
        let Some(mut tables) = self.tables() else {
            return Ok(());
        };
        if tables.held.is_empty() {
            return Ok(());
        }
        self.settle(&mut tables)?;
        for (&offset, entries) in &tables.held {
            self.inner.write(&entries[..], offset)?;
        }
        tables.held.clear();
        tables.unstable.rest = true;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()?;
        if let Some(mut tables) = self.tables() {
            tables.unstable = Unstable::default();
        }
        Ok(())
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.inner.settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: as the caller has promised.
        unsafe { self.inner.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.inner.get_storage_helper()
    }
}

impl<S: Display> Display for Ordered<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
#[path = "ordered_test.rs"]
mod tests;
