//! The interpretation of channel programs (Principles of Operation, chapter 15).
//!
//! Indirect addresses and suspension are refused with a program check: no driver of virtual devices has a use for them.

use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::{
    Ccw, ChannelDevice, Format, Orb, Progress, Refusal, command, device_status, subchannel_status,
};
use crate::Memory;

/// Commands that a program is made of at most; one that goes on is in a circle, or at least ours to end.
const MOST_COMMANDS: u16 = 256;
/// Modified indirect addresses.
const MODIFIED_INDIRECT: u8 = 0x01;
/// Bytes of sense data, of which the first is in use.
pub(super) const SENSE_BYTES: usize = 32;
/// The device rejects the command.
const COMMAND_REJECT: u8 = 0x80;

/// Sense data.
pub(super) type Sense = [u8; SENSE_BYTES];

/// A channel program under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    format: Format,
    /// Address of the next command.
    next: u32,
    /// The last command was a transfer in channel.
    transferred: bool,
    /// How many commands there were.
    commands: u16,
    /// The program asked to interrupt.
    interrupting: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Address behind its last command.
    pub(super) program: u32,
    /// [`device_status`].
    pub(super) device_status: u8,
    /// [`subchannel_status`].
    pub(super) subchannel_status: u8,
    /// Bytes that its last command did not use.
    pub(super) count: u16,
}

/// The data of a command, in one piece or chained.
pub struct Data<'a> {
    memory: &'a Memory,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy)]
struct Piece {
    address: u32,
    length: u16,
    /// Nothing is stored.
    skip: bool,
}

/// A command with its data.
struct Command<'a> {
    code: u8,
    /// Of the last of the commands whose data are chained.
    flags: u8,
    data: Data<'a>,
}

/// A program check.
struct ProgramCheck;

/// What comes after a command.
enum Step {
    Chained,
    Ended(End),
    Later,
}

impl Program {
    pub(super) fn new(orb: &Orb) -> Self {
        Self {
            format: orb.format(),
            next: orb.program,
            transferred: false,
            commands: 0,
            interrupting: false,
        }
    }

    /// Executes commands up to the end; none if the device puts one off.
    pub(super) fn run(
        &mut self,
        device: &mut dyn ChannelDevice,
        sense: &mut Sense,
        memory: &Memory,
    ) -> Option<End> {
        loop {
            match self.step(device, sense, memory) {
                Ok(Step::Chained) => {}
                Ok(Step::Ended(end)) => return Some(self.ended(end)),
                Ok(Step::Later) => return None,
                Err(ProgramCheck) => {
                    return Some(self.ended(End {
                        subchannel_status: subchannel_status::PROGRAM_CHECK,
                        ..End::default()
                    }));
                }
            }
        }
    }

    fn ended(&self, mut end: End) -> End {
        end.program = self.next;
        if self.interrupting {
            end.subchannel_status |= subchannel_status::PROGRAM_CONTROLLED;
        }
        end
    }

    /// Executes one command.
    fn step(
        &mut self,
        device: &mut dyn ChannelDevice,
        sense: &mut Sense,
        memory: &Memory,
    ) -> Result<Step, ProgramCheck> {
        let (begin, transferred) = (self.next, self.transferred);
        let Command { code, flags, data } = self.fetch(memory)?;
        let used = match execute(code, &data, device, sense) {
            Ok(Progress::Done(used)) => used,
            Ok(Progress::Later) => {
                (self.next, self.transferred) = (begin, transferred);
                return Ok(Step::Later);
            }
            Err(Refusal::NotInMemory) => return Err(ProgramCheck),
            Err(Refusal::Reject) => {
                sense.fill(0);
                sense[0] = COMMAND_REJECT;
                return Ok(Step::Ended(End {
                    device_status: device_status::UNIT_CHECK,
                    count: data.rest(0).1,
                    ..End::default()
                }));
            }
        };
        let (in_last, count) = data.rest(used);
        let suppressed = in_last && flags & command::SUPPRESS_LENGTH != 0;
        let mut end = End {
            device_status: device_status::CHANNEL_END | device_status::DEVICE_END,
            count,
            ..End::default()
        };
        if used != data.len() && !suppressed {
            end.subchannel_status = subchannel_status::INCORRECT_LENGTH;
        } else if flags & command::CHAIN_COMMAND != 0 {
            return Ok(Step::Chained);
        }
        Ok(Step::Ended(end))
    }

    /// The next command, with all of its data.
    fn fetch<'a>(&mut self, memory: &'a Memory) -> Result<Command<'a>, ProgramCheck> {
        let mut ccw = self.next_ccw(memory)?;
        let code = ccw.command;
        if code & 0x0f == 0 {
            return Err(ProgramCheck);
        }
        let mut pieces = Vec::new();
        loop {
            let chained = ccw.flags & command::CHAIN_DATA != 0;
            // Only a single command may be without data, and only in format 1.
            let may_be_empty = self.format == Format::One && pieces.is_empty() && !chained;
            if ccw.count == 0 && !may_be_empty {
                return Err(ProgramCheck);
            }
            pieces.push(Piece {
                address: ccw.address,
                length: ccw.count,
                skip: ccw.flags & command::SKIP != 0,
            });
            if !chained {
                break;
            }
            ccw = self.next_ccw(memory)?;
        }
        Ok(Command {
            code,
            flags: ccw.flags,
            data: Data { memory, pieces },
        })
    }

    /// The next command word that is no transfer in channel.
    fn next_ccw(&mut self, memory: &Memory) -> Result<Ccw, ProgramCheck> {
        loop {
            let ccw = self.read_ccw(memory)?;
            if !ccw.is_transfer(self.format) {
                self.transferred = false;
                let refused = command::INDIRECT | command::SUSPEND | MODIFIED_INDIRECT;
                if ccw.flags & refused != 0 {
                    return Err(ProgramCheck);
                }
                self.interrupting |= ccw.flags & command::INTERRUPT != 0;
                return Ok(ccw);
            }
            let rest_is_zero = self.format == Format::Zero || ccw.flags == 0 && ccw.count == 0;
            if std::mem::replace(&mut self.transferred, true) || !rest_is_zero {
                return Err(ProgramCheck);
            }
            self.next = ccw.address;
        }
    }

    fn read_ccw(&mut self, memory: &Memory) -> Result<Ccw, ProgramCheck> {
        let at = self.next;
        // At most 31 bits.
        self.next = at + Ccw::SIZE as u32;
        self.commands += 1;
        let most = match self.format {
            Format::Zero => 0x00ff_ffff,
            Format::One => 0x7fff_ffff,
        };
        if self.commands > MOST_COMMANDS || !at.is_multiple_of(8) || at > most {
            return Err(ProgramCheck);
        }
        let mut bytes = [0; Ccw::SIZE];
        memory
            .read_slice(&mut bytes, GuestAddress(at.into()))
            .map_err(|_| ProgramCheck)?;
        Ccw::from_bytes(self.format, &bytes).ok_or(ProgramCheck)
    }
}

/// Executes a command that all devices have, or has the device do it.
fn execute(
    code: u8,
    data: &Data<'_>,
    device: &mut dyn ChannelDevice,
    sense: &mut Sense,
) -> Result<Progress, Refusal> {
    match code {
        // A control command, which takes no data.
        command::NO_OPERATION => Ok(Progress::Done(data.len())),
        command::SENSE => {
            let used = data.put_some(sense)?;
            sense.fill(0);
            Ok(Progress::Done(used))
        }
        command::SENSE_ID => {
            let used = data.put_some(&device.sense_id().to_bytes())?;
            Ok(Progress::Done(used))
        }
        _ => device.command(code, data),
    }
}

impl Data<'_> {
    /// Bytes.
    pub fn len(&self) -> usize {
        let lengths = self.pieces.iter().map(|piece| usize::from(piece.length));
        lengths.sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their beginning.
    ///
    /// # Errors
    /// When they are fewer, or not in guest memory.
    pub fn get<const N: usize>(&self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with their beginning.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn read(&self, bytes: &mut [u8]) -> Result<(), Refusal> {
        let mut rest = bytes;
        self.each(0, rest.len(), |memory, at, length, _| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(length);
            rest = behind;
            memory
                .read_slice(part, at)
                .map_err(|_| Refusal::NotInMemory)
        })
    }

    /// Stores `bytes` in their place from `offset` on.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn put(&self, offset: usize, bytes: &[u8]) -> Result<(), Refusal> {
        let mut rest = bytes;
        self.each(offset, bytes.len(), |memory, at, length, skip| {
            let (part, behind) = rest.split_at(length);
            rest = behind;
            if skip {
                return Ok(());
            }
            memory
                .write_slice(part, at)
                .map_err(|_| Refusal::NotInMemory)
        })
    }

    /// Stores as many of `bytes` as there is room for. Returns how many.
    ///
    /// # Errors
    /// When they are not in guest memory.
    pub fn put_some(&self, bytes: &[u8]) -> Result<usize, Refusal> {
        let length = bytes.len().min(self.len());
        self.put(0, bytes.get(..length).unwrap_or_default())?;
        Ok(length)
    }

    /// Calls `with` for where `length` bytes are from `offset` on.
    fn each(
        &self,
        mut offset: usize,
        mut length: usize,
        mut with: impl FnMut(&Memory, GuestAddress, usize, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for piece in &self.pieces {
            let room = usize::from(piece.length);
            if offset >= room {
                offset -= room;
                continue;
            }
            let part = length.min(room - offset);
            let at = GuestAddress(u64::from(piece.address) + offset as u64);
            if part > 0 {
                if !self.memory.check_range(at, part) {
                    return Err(Refusal::NotInMemory);
                }
                with(self.memory, at, part, piece.skip)?;
            }
            (offset, length) = (0, length - part);
        }
        if length == 0 {
            Ok(())
        } else {
            Err(Refusal::Reject)
        }
    }

    /// Where `used` bytes end: whether in the last piece, and how many bytes of the piece are left.
    fn rest(&self, used: usize) -> (bool, u16) {
        let mut used = used;
        for (piece, left) in self.pieces.iter().zip((0..self.pieces.len()).rev()) {
            match usize::from(piece.length).checked_sub(used) {
                // No more than the piece has.
                Some(rest) if rest > 0 || left == 0 => return (left == 0, rest as u16),
                _ => used = used.saturating_sub(piece.length.into()),
            }
        }
        (true, 0)
    }
}
