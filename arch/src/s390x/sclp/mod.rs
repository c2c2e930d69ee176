//! The service call (SERVC): a command word, and a block in guest memory (SCCB) that is asked and answered. Numbers and
//! layouts are those of Linux' drivers (drivers/s390/char/sclp*.[ch]), as no book that anybody may read has them.

mod events;
mod info;

pub use events::Events;

use vm_memory::{Be16, Bytes, GuestAddress};

use super::Machine;
use crate::Memory;

/// An SCCB is within one page.
const PAGE: u64 = 4096;
/// Length, function code, control mask of three bytes, response code.
const HEADER: usize = 8;
const FUNCTION_CODE: usize = 2;
/// Its uppermost bit asks for an answer that is as long as it comes out.
const CONTROL_MASK: usize = 5;
const VARIABLE_LENGTH: u8 = 0x80;
const RESPONSE_CODE: usize = 6;

/// How a service call ends.
mod response {
    pub(super) const READ: u16 = 0x0010;
    pub(super) const DONE: u16 = 0x0020;
    pub(super) const BOUNDARY_VIOLATION: u16 = 0x0100;
    pub(super) const INVALID_COMMAND: u16 = 0x01f0;
    pub(super) const TOO_SHORT: u16 = 0x0300;
    pub(super) const INVALID_FUNCTION: u16 = 0x40f0;
    pub(super) const NO_EVENTS: u16 = 0x60f0;
    pub(super) const INVALID_SELECTION: u16 = 0x70f0;
    pub(super) const INCONSISTENT_LENGTHS: u16 = 0x72f0;
    pub(super) const EVENT_SYNTAX: u16 = 0x73f0;
    pub(super) const INVALID_MASK_LENGTH: u16 = 0x74f0;
}

/// The instruction is not done: the guest gets a program interruption instead, with this code (Principles of Operation,
/// chapter 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ProgramInterruption {
    /// There is no such memory.
    Addressing = 5,
    /// An address that is not aligned, or a length that cannot be.
    Specification = 6,
}

/// A copy of the guest's block, which it cannot change under our hands.
#[derive(Debug)]
pub struct Sccb {
    address: GuestAddress,
    /// At least the header; no more than that if `crosses`.
    bytes: Vec<u8>,
    /// Whether it goes on in the next page, which is not allowed.
    crosses: bool,
}

impl Sccb {
    /// Reads the block at `address`, as the instruction has it in a register.
    ///
    /// # Errors
    /// With what the guest gets instead of an answer.
    pub fn read(memory: &Memory, address: u64) -> Result<Self, ProgramInterruption> {
        // 31 bits, a double word; the first two pages are a CPU's own.
        if address & !0x7fff_fff8 != 0 || address < 2 * PAGE {
            return Err(ProgramInterruption::Specification);
        }
        let start = GuestAddress(address);
        let length = memory.read_obj::<Be16>(start);
        let length = usize::from(length.map_err(unmapped)?.to_native());
        if length < HEADER {
            return Err(ProgramInterruption::Specification);
        }
        let crosses = address % PAGE + length as u64 > PAGE;
        let mut bytes = vec![0; if crosses { HEADER } else { length }];
        memory.read_slice(&mut bytes, start).map_err(unmapped)?;
        // As it was when it was checked.
        bytes[..2].copy_from_slice(&(length as u16).to_be_bytes());
        Ok(Self {
            address: start,
            bytes,
            crosses,
        })
    }

    /// Writes the answer to where the question was.
    ///
    /// # Errors
    /// With what the guest gets instead.
    pub fn write(&self, memory: &Memory) -> Result<(), ProgramInterruption> {
        let written = memory.write_slice(&self.bytes, self.address);
        written.map_err(unmapped)
    }

    /// Answers a command. Returns what the guest has written to its console.
    pub fn answer(&mut self, command: u32, machine: &Machine, events: &mut Events) -> Vec<u8> {
        let mut text = Vec::new();
        let code = if self.crosses {
            response::BOUNDARY_VIOLATION
        } else {
            // The third byte names a part of the machine, of which there are none.
            match command & 0xffff_00ff {
                0x0002_0001 | 0x0012_0001 => info::read_scp_info(&mut self.bytes, machine),
                0x0001_0001 => info::read_cpu_info(&mut self.bytes, machine),
                0x0078_0005 => events.write_mask(&mut self.bytes),
                0x0076_0005 => events::write_data(&mut self.bytes, &mut text),
                0x0077_0005 => events.read_data(&mut self.bytes),
                _ => response::INVALID_COMMAND,
            }
        };
        put(&mut self.bytes, RESPONSE_CODE, code.to_be_bytes());
        text
    }
}

fn unmapped(_: vm_memory::GuestMemoryError) -> ProgramInterruption {
    ProgramInterruption::Addressing
}

/// Writes a field; nothing if the block ends before.
fn put<const N: usize>(block: &mut [u8], offset: usize, field: [u8; N]) {
    if let Some(place) = block.get_mut(offset..offset + N) {
        place.copy_from_slice(&field);
    }
}

/// Reads a half word; unset if the block ends before.
fn half_word(block: &[u8], offset: usize) -> Option<u16> {
    let bytes = block.get(offset..offset + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
