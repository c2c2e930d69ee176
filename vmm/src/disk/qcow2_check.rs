//! What has to be right in a qcow2 image before anything is written to it: the bookkeeping of what in
//! the file is in use (QEMU's docs/interop/qcow2.txt). Otherwise new data would go over old, or there
//! would be no end of looking for room.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail, ensure};
use devices::dev::blk::QCOW2_MAGIC;

/// What all versions have.
const HEADER: usize = 72;
/// Of version 3: what a program has to know to use the image at all.
const INCOMPATIBLE: u64 = 72;
/// Among that: the data is in another file.
const DATA_FILE: u64 = 1 << 2;
/// Of version 3: how wide a reference count is.
const REFCOUNT_ORDER: u64 = 96;

/// The numbers in the header that count here.
struct Header {
    cluster_bits: u32,
    encrypted: bool,
    data_file: bool,
    l1: (u64, u64),
    table: (u64, u64),
    /// A reference count has two to the power of this many bits.
    order: u32,
    /// The file's length.
    length: u64,
}

/// Checks what is not looked at when an image is opened.
///
/// # Errors
/// When the image is encrypted, or its data in another file; or, to be written, when its reference counts are broken.
pub(super) fn check(file: &File, writable: bool) -> Result<()> {
    let Some(header) = Header::read(file)? else {
        // A raw image that another one stands on.
        return Ok(());
    };
    if header.encrypted {
        bail!("encrypted images are not known: `qemu-img convert` makes another one of it");
    }
    ensure!(
        !header.data_file,
        "its data is in another file: `qemu-img convert` makes one of both"
    );
    if writable {
        header.check_counts(file)?;
    }
    Ok(())
}

impl Header {
    /// Nothing, if there is none.
    fn read(file: &File) -> Result<Option<Self>> {
        let mut bytes = [0; HEADER];
        let length = file.metadata()?.len();
        if length < HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0)?;
        if !bytes.starts_with(&QCOW2_MAGIC) {
            return Ok(None);
        }
        let field = |at: usize, size: usize| {
            let field = bytes.get(at..).unwrap_or_default().iter().take(size);
            field.fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let (order, incompatible) = if field(4, 4) < 3 {
            (4, 0)
        } else {
            let order = number(file, REFCOUNT_ORDER, 4)? as u32;
            (order, number(file, INCOMPATIBLE, 8)?)
        };
        let cluster_bits = field(20, 4) as u32;
        ensure!(
            (9..=21).contains(&cluster_bits) && order <= 6,
            "its header is broken"
        );
        Ok(Some(Self {
            cluster_bits,
            encrypted: field(32, 4) != 0,
            data_file: incompatible & DATA_FILE != 0,
            l1: (field(40, 8), field(36, 4) * 8),
            table: (field(48, 8), field(56, 4) << cluster_bits),
            order,
            length,
        }))
    }

    /// Everything in the file is counted, and what the counts and the guest's first table are in is in
    /// use.
    fn check_counts(&self, file: &File) -> Result<()> {
        let clusters = self.length.div_ceil(1 << self.cluster_bits);
        let blocks = clusters.div_ceil(self.counts());
        ensure!(blocks <= self.table.1 / 8, BROKEN);
        for block in 0..blocks {
            let at = self.block(file, block)?;
            self.check_used(file, (at, 1))?;
        }
        self.check_used(file, (0, 1))?;
        self.check_used(file, self.table)?;
        self.check_used(file, self.l1)
    }

    /// How many counts a block of them has.
    fn counts(&self) -> u64 {
        8 << self.cluster_bits >> self.order
    }

    /// Where a block of counts is.
    fn block(&self, file: &File, block: u64) -> Result<u64> {
        // The table is within the file: else this fails.
        let at = number(file, self.table.0.saturating_add(block * 8), 8)?;
        let aligned = at.trailing_zeros() >= self.cluster_bits;
        ensure!(at > 0 && aligned && at < self.length, BROKEN);
        Ok(at)
    }

    /// All clusters of a part of the file, given by its offset and length, are in use.
    fn check_used(&self, file: &File, (offset, length): (u64, u64)) -> Result<()> {
        let end = offset.checked_add(length);
        ensure!(end.is_some_and(|end| end <= self.length), BROKEN);
        let first = offset >> self.cluster_bits;
        let last = (offset + length.saturating_sub(1)) >> self.cluster_bits;
        for cluster in first..=last {
            let block = self.block(file, cluster / self.counts())?;
            let bit = (cluster % self.counts()) << self.order;
            let bytes = 1 << self.order.saturating_sub(3);
            let count = number(file, block + bit / 8, bytes)?;
            let count = if self.order < 3 {
                count >> (bit % 8) & ((1 << (1 << self.order)) - 1)
            } else {
                count
            };
            ensure!(count > 0, BROKEN);
        }
        Ok(())
    }
}

const BROKEN: &str = "its reference counts are broken: `qemu-img check -r all FILE` repairs them";

/// A number in the file, big-endian.
fn number(file: &File, at: u64, size: usize) -> io::Result<u64> {
    let mut bytes = [0; 8];
    let field = bytes.get_mut(8 - size..).unwrap_or_default();
    file.read_exact_at(field, at)?;
    Ok(u64::from_be_bytes(bytes))
}
