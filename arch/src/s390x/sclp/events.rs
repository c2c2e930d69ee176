//! Events: which of them there are, those that the guest sends (text for its console), and those that it fetches (input,
//! and the wish that it end).

use std::collections::VecDeque;

use super::response::{
    DONE, EVENT_SYNTAX, INCONSISTENT_LENGTHS, INVALID_FUNCTION, INVALID_MASK_LENGTH,
    INVALID_SELECTION, NO_EVENTS, TOO_SHORT,
};
use super::{CONTROL_MASK, FUNCTION_CODE, HEADER, PAGE, VARIABLE_LENGTH, half_word, put};

/// Of masks of 64 bits, which count from the left and begin with type 1.
const VT220: u64 = 1 << (64 - TYPE_VT220);
const QUIESCE: u64 = 1 << (64 - TYPE_QUIESCE);
const TYPE_VT220: u8 = 0x1a;
const TYPE_QUIESCE: u8 = 0x1d;

/// Of an event: length, type, flags, two bytes more.
const EVENT_HEADER: usize = 6;
const EVENT_TYPE: usize = 2;
const EVENT_FLAGS: usize = 3;
const ACCEPTED: u8 = 0x80;
/// Of VT220 input: what follows is what was typed.
const SESSION_DATA: u8 = 0;

/// Longest mask that can be (`SCLP_EVENT_MASK_LEN_MAX`).
const MASK_LENGTH_MAX: usize = 1021;

/// What the guest has been told, and what there is for it.
#[derive(Debug, Default)]
pub struct Events {
    /// Those that it takes.
    receive: u64,
    /// How long its masks are.
    mask_length: usize,
    /// Whether it has a console. Linux would use one as well as the one that it is told to use.
    pub console: bool,
    /// For its console. Whoever fills this bounds it.
    pub input: VecDeque<u8>,
    /// Whether it shall end.
    pub quiesce: bool,
}

impl Events {
    /// Whether there is something that it would fetch if it were told so.
    pub fn pending(&self) -> bool {
        let input = !self.input.is_empty() && self.receive & VT220 != 0;
        input || self.quiesce && self.receive & QUIESCE != 0
    }

    /// WRITE EVENT MASK: four masks behind one another, what the guest takes and sends, and, as the answer, what we take
    /// and send.
    pub(super) fn write_mask(&mut self, block: &mut [u8]) -> u16 {
        const MASKS: usize = 12;
        let Some(length) = half_word(block, 10).map(usize::from) else {
            return TOO_SHORT;
        };
        if !(1..=MASK_LENGTH_MAX).contains(&length) {
            return INVALID_MASK_LENGTH;
        }
        let Some(masks) = block.get_mut(MASKS..MASKS + 4 * length) else {
            return TOO_SHORT;
        };
        self.receive = read_mask(&masks[..length]);
        self.mask_length = length;
        let console = if self.console { VT220 } else { 0 };
        write_mask(&mut masks[2 * length..3 * length], console);
        write_mask(&mut masks[3 * length..], console | QUIESCE);
        DONE
    }

    /// READ EVENT DATA: as many events as there are.
    pub(super) fn read_data(&mut self, block: &mut [u8]) -> u16 {
        if block.len() as u64 != PAGE {
            return TOO_SHORT;
        }
        let selected = match block[FUNCTION_CODE] {
            0 => self.receive,
            0x80 => read_mask(&block[HEADER..HEADER + self.mask_length]),
            _ => return INVALID_FUNCTION,
        };
        if selected & !self.receive != 0 {
            return INVALID_SELECTION;
        }
        let end = self.put_events(block, selected);
        if block[CONTROL_MASK] & VARIABLE_LENGTH != 0 {
            block[CONTROL_MASK] &= !VARIABLE_LENGTH;
            put(block, 0, (end as u16).to_be_bytes());
        }
        if end == HEADER { NO_EVENTS } else { DONE }
    }

    /// Returns where they end.
    fn put_events(&mut self, block: &mut [u8], selected: u64) -> usize {
        let mut end = HEADER;
        if self.quiesce && selected & QUIESCE != 0 {
            self.quiesce = false;
            // At once: a timeout of 0, two bytes and its unit.
            end += put_event(&mut block[end..], TYPE_QUIESCE, &[0; 3]);
        }
        if !self.input.is_empty() && selected & VT220 != 0 {
            let room = block.len() - end - EVENT_HEADER - 1;
            let count = room.min(self.input.len());
            let typed = [SESSION_DATA].into_iter().chain(self.input.drain(..count));
            let typed: Vec<u8> = typed.collect();
            end += put_event(&mut block[end..], TYPE_VT220, &typed);
        }
        end
    }
}

/// Puts an event at the beginning of `room`, which is large enough. Returns its length.
fn put_event(room: &mut [u8], kind: u8, data: &[u8]) -> usize {
    let length = EVENT_HEADER + data.len();
    room[..EVENT_HEADER].fill(0);
    put(room, 0, (length as u16).to_be_bytes());
    room[EVENT_TYPE] = kind;
    room[EVENT_HEADER..length].copy_from_slice(data);
    length
}

/// WRITE EVENT DATA: events behind one another. What is for the console is added to `text`.
pub(super) fn write_data(block: &mut [u8], text: &mut Vec<u8>) -> u16 {
    if block[FUNCTION_CODE] != 0 {
        return INVALID_FUNCTION;
    }
    // All of them are looked at before any is taken.
    if let Err(code) = each_event(&mut block[HEADER..], |_| Ok(())) {
        return code;
    }
    let taken = each_event(&mut block[HEADER..], |event| {
        if event[EVENT_TYPE] != TYPE_VT220 {
            return Err(INVALID_FUNCTION);
        }
        event[EVENT_FLAGS] |= ACCEPTED;
        text.extend_from_slice(&event[EVENT_HEADER..]);
        Ok(())
    });
    taken.err().unwrap_or(DONE)
}

fn each_event(
    mut rest: &mut [u8],
    mut each: impl FnMut(&mut [u8]) -> Result<(), u16>,
) -> Result<(), u16> {
    while !rest.is_empty() {
        let length = half_word(rest, 0).ok_or(INCONSISTENT_LENGTHS)?.into();
        if !(EVENT_HEADER..=rest.len()).contains(&length) {
            return Err(EVENT_SYNTAX);
        }
        let (event, behind) = rest.split_at_mut(length);
        each(event)?;
        rest = behind;
    }
    Ok(())
}

/// The first 64 bits of a mask; those that are missing are 0.
fn read_mask(bytes: &[u8]) -> u64 {
    let mut mask = [0; 8];
    let length = bytes.len().min(8);
    mask[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(mask)
}

fn write_mask(place: &mut [u8], mask: u64) {
    let bytes = mask
        .to_be_bytes()
        .into_iter()
        .chain([0].into_iter().cycle());
    for (byte, value) in place.iter_mut().zip(bytes) {
        *byte = value;
    }
}
