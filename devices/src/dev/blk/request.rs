//! What a driver asks of a disk (virtio 1.3, section 5.2.6).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Bytes, GuestAddress};

use super::layout::{MAX_RANGE_SECTORS, SECTOR};
use crate::Memory;
use crate::device::DeviceError;
use crate::queue::Chain;
use crate::queue::buffers::{Buffers, Slice};

/// The longest chain that is followed: more pieces than one system call takes (UIO_MAXIOV) can not be
/// answered anyway.
const MAX_DESCRIPTORS: u16 = 1024 + 2;

/// The header, before the data: type, reserved, sector.
const HEADER: usize = 16;
/// One range to discard or to fill with zeroes: sector, number of sectors, flags.
const RANGE: usize = 16;
/// The flag of a range that may become a hole (VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP).
const UNMAP: u32 = 1;

/// The driver's request, checked against the disk's size.
#[derive(Debug)]
pub(super) enum Request {
    /// Read from this offset into the data.
    Read(u64),
    /// Write the data there.
    Write(u64),
    /// Have all writes that were answered on stable storage.
    Flush,
    /// The range is not used any more.
    Discard(Range),
    /// The range is to read as zeroes; it may become a hole.
    Zero { range: Range, unmap: bool },
    /// Put the serial number into the data.
    GetId,
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// The limits of a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Size in bytes.
    pub(super) size: u64,
    pub(super) read_only: bool,
}

/// A chain of descriptors taken apart: header, data either way, and the place of the status.
pub(super) struct Parts {
    header: [u8; HEADER],
    readable: Buffers,
    writable: Buffers,
    pub(super) status: GuestAddress,
}

impl Parts {
    /// Nothing, if there is no header or no place for a status: nobody can be told what is wrong.
    ///
    /// # Errors
    /// When the chain is longer than any request.
    pub(super) fn of(chain: Chain, memory: &Memory) -> Result<Option<Self>, DeviceError> {
        let mut readable = Buffers::readable(chain.clone(), MAX_DESCRIPTORS)?;
        let mut writable = Buffers::writable(chain, MAX_DESCRIPTORS)?;
        let Some(status) = writable.split_last_byte() else {
            return Ok(None);
        };
        let Some(header) = take(&mut readable, memory) else {
            return Ok(None);
        };
        Ok(Some(Self {
            header,
            readable,
            writable,
            status,
        }))
    }

    /// What is asked.
    ///
    /// # Errors
    /// The status for what cannot be done.
    pub(super) fn request(&mut self, memory: &Memory, limits: Limits) -> Result<Request, Status> {
        let kind = u32_at(&self.header, 0);
        let sector = u64_at(&self.header, 8);
        match kind {
            VIRTIO_BLK_T_IN => {
                let range = limits.range(sector, self.writable.length())?;
                Ok(Request::Read(range.offset))
            }
            VIRTIO_BLK_T_OUT => {
                let range = limits.range(sector, self.readable.length())?;
                limits.writable()?;
                Ok(Request::Write(range.offset))
            }
            VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Request::GetId),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                limits.writable()?;
                self.range(kind, memory, limits)
            }
            _ => Err(Status::Unsupported),
        }
    }

    /// The one range that such a request may have.
    fn range(&mut self, kind: u32, memory: &Memory, limits: Limits) -> Result<Request, Status> {
        if self.readable.length() != RANGE as u64 {
            return Err(Status::IoError);
        }
        let fields: [u8; RANGE] = take(&mut self.readable, memory).ok_or(Status::IoError)?;
        let (sectors, flags) = (u32_at(&fields, 8), u32_at(&fields, 12));
        if sectors > MAX_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        let range = limits.range(u64_at(&fields, 0), u64::from(sectors) * SECTOR)?;
        // Section 5.2.6.2: with flags that it does not know, the device answers so.
        match (kind, flags) {
            (VIRTIO_BLK_T_DISCARD, 0) => Ok(Request::Discard(range)),
            (VIRTIO_BLK_T_WRITE_ZEROES, 0 | UNMAP) => Ok(Request::Zero {
                range,
                unmap: flags == UNMAP,
            }),
            _ => Err(Status::Unsupported),
        }
    }

    /// The pieces of memory that a read fills or a write empties.
    ///
    /// # Errors
    /// When there is no such memory.
    pub(super) fn data<'a>(
        &self,
        request: &Request,
        memory: &'a Memory,
    ) -> Result<Vec<Slice<'a>>, Status> {
        let buffers = match request {
            Request::Read(_) | Request::GetId => &self.writable,
            _ => &self.readable,
        };
        buffers.all_slices(memory).map_err(|_| Status::IoError)
    }
}

impl Limits {
    /// `length` bytes from `sector` on, all of them within the disk.
    fn range(self, sector: u64, length: u64) -> Result<Range, Status> {
        let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
        let end = offset.checked_add(length).ok_or(Status::IoError)?;
        if length == 0 || !length.is_multiple_of(SECTOR) || end > self.size {
            return Err(Status::IoError);
        }
        Ok(Range { offset, length })
    }

    fn writable(self) -> Result<(), Status> {
        if self.read_only {
            return Err(Status::IoError);
        }
        Ok(())
    }
}

/// Takes the next bytes; nothing, if they are not there.
fn take<const N: usize>(buffers: &mut Buffers, memory: &Memory) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut done = 0;
    for slice in buffers.slices(memory, N).ok()? {
        done += slice.read(bytes.get_mut(done..)?, 0).ok()?;
    }
    buffers.advance(done);
    (done == N).then_some(bytes)
}

/// The number at `offset`, little-endian; what is not there is zero.
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let field = bytes.get(offset..).unwrap_or_default().iter().take(8);
    (0..)
        .zip(field)
        .fold(0, |number, (i, &byte)| number | u64::from(byte) << (8 * i))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u64_at(bytes, offset) as u32
}
