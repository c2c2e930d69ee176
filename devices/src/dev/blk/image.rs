//! Images of other formats than raw: a crate knows where in the file the guest's data is. One call after
//! the other.

// The crate takes guest memory as volatile slices, which are made from pointers here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::{FormatAccess, file};
use libc::FALLOC_FL_PUNCH_HOLE;
use vm_memory::VolatileSlice;

use super::ordered::Ordered;
use super::pieces::Pieces;
use super::request::Range;
use super::task::{Call, Task};

/// An image, open.
#[derive(Debug)]
pub struct Image {
    /// Its contents, as the guest sees them.
    pub access: FormatAccess<Ordered<file::File>>,
    /// What else has to stay open while it is used: files that are locked.
    pub locked: Vec<File>,
}

/// The first bytes of a qcow2 image (QEMU's docs/interop/qcow2.txt).
pub const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// Makes the task's next call. Returns how many bytes it moved, if it moves any.
///
/// # Errors
/// The kernel's, and when the image is broken.
pub(super) fn make(image: &mut Image, task: &Task) -> io::Result<usize> {
    let (range, access) = (task.range(), &mut image.access);
    match task.call() {
        Call::Read => {
            let slices = slices(task);
            let (vector, _guard) = IoVectorMut::from_volatile_slice(&slices);
            access.readv(vector, range.offset)?;
        }
        Call::Write { stable } => {
            let slices = slices(task);
            let (vector, _guard) = IoVector::from_volatile_slice(&slices);
            access.writev(vector, range.offset)?;
            if stable {
                sync(access)?;
            }
        }
        Call::Sync => sync(access)?,
        Call::Allocate(mode) => clear(access, range, mode & FALLOC_FL_PUNCH_HOLE != 0)?,
    }
    Ok(task.pieces().length())
}

/// Has a range read as zeroes. The crate does so with whole clusters only: in the last one of an image
/// that does not end with it, it miscounts those that it is to clear in part (imago 0.2.6,
/// `soft_ensure_zero`).
fn clear(
    access: &mut FormatAccess<Ordered<file::File>>,
    range: Range,
    free: bool,
) -> io::Result<()> {
    let cluster = access.inner().zero_granularity();
    let cluster = cluster.ok_or(io::ErrorKind::Unsupported)?;
    let end = range.offset + range.length;
    let first = range.offset.next_multiple_of(cluster).min(end);
    let last = (end / cluster * cluster).max(first);
    write_zeroes(access, range.offset, first)?;
    match last - first {
        0 => {}
        length if free => access.discard_to_zero(first, length)?,
        length => access.write_zeroes(first, length)?,
    }
    write_zeroes(access, last, end)
}

/// Writes them from `offset` to `end`.
fn write_zeroes(
    access: &FormatAccess<Ordered<file::File>>,
    mut offset: u64,
    end: u64,
) -> io::Result<()> {
    let zeroes = Pieces::zero_bytes();
    while offset < end {
        let length = zeroes.len().min((end - offset) as usize);
        access.write(zeroes.get(..length).unwrap_or_default(), offset)?;
        offset += length as u64;
    }
    Ok(())
}

/// What the image says where is, is in the file; the file system writes it when it likes.
///
/// # Errors
/// The kernel's.
pub(super) fn finish(image: &Image) -> io::Result<()> {
    image.access.flush()
}

/// What the image says where is, and then all of it, is on stable storage.
fn sync(access: &FormatAccess<Ordered<file::File>>) -> io::Result<()> {
    access.flush()?;
    access.sync()
}

fn slices(task: &Task) -> Vec<VolatileSlice<'_>> {
    let pieces = task.pieces().left().iter();
    pieces
        .map(|piece| {
            // SAFETY: the task's pieces are memory that lives as long as it does. The crate makes
            // system calls on it, and copies bytes from or to it; it makes no decision by them.
            unsafe { VolatileSlice::new(piece.iov_base.cast(), piece.iov_len) }
        })
        .collect()
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
