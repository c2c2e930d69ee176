//! A chain of the driver's that a packet to the guest is put into.

use std::io;
use std::os::unix::net::UnixStream;

use vm_memory::{ReadVolatile, VolatileMemoryError};

use super::packet::{HEADER, Packet};
use crate::Memory;
use crate::device::DeviceError;
use crate::queue::buffers::{Buffers, Slice};

/// The most bytes of one packet. Linux has 4 KiB for each.
pub(super) const MAX_DATA: usize = 64 << 10;

/// Room for a header and at least one byte.
pub(super) struct Room<'a> {
    header: Vec<Slice<'a>>,
    data: Vec<Slice<'a>>,
}

impl<'a> Room<'a> {
    /// `None` if the buffers, which are in `memory`, are too short for any packet with data.
    ///
    /// # Errors
    /// When the driver named memory that does not exist.
    pub(super) fn new(
        mut buffers: Buffers,
        memory: &'a Memory,
    ) -> Result<Option<Self>, DeviceError> {
        let header = buffers.slices(memory, HEADER)?;
        let length: usize = header.iter().map(|slice| slice.len()).sum();
        buffers.advance(length);
        let data = buffers.slices(memory, MAX_DATA)?;
        let fits = length == HEADER && !data.is_empty();
        Ok(fits.then_some(Self { header, data }))
    }

    /// Reads at most `limit` bytes, more than none, straight into the chain. Returns 0 at the end of
    /// the stream only.
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn read(&mut self, stream: &mut UnixStream, limit: usize) -> io::Result<usize> {
        let mut total = 0;
        for slice in &self.data {
            let wanted = slice.len().min(limit - total);
            if wanted == 0 {
                break;
            }
            let part = slice.subslice(0, wanted).map_err(io::Error::other)?;
            match read(stream, part) {
                Ok(count) => {
                    total += count;
                    if count < wanted {
                        break;
                    }
                }
                // It comes again with the next packet, if it is none that passes.
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Writes the header. Returns how many bytes of the chain are used.
    pub(super) fn finish(self, packet: &Packet) -> u32 {
        let bytes = packet.bytes();
        let mut rest = &bytes[..];
        for slice in self.header {
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or_default();
        }
        HEADER as u32 + packet.length
    }
}

fn read(stream: &mut UnixStream, mut slice: Slice<'_>) -> io::Result<usize> {
    loop {
        match stream.read_volatile(&mut slice).map_err(io_error) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What the system call said.
pub(super) fn io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}
