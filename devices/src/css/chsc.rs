//! CHANNEL SUBSYSTEM CALL (CHSC): a page with a request, and its answer behind that. The commands are those that Linux
//! needs (drivers/s390/cio/chsc.[ch]), the answers for virtual devices alone.

use super::CHANNEL_PATH_TYPE;

/// What a request begins with: its length, its command, three parameters.
const REQUEST: usize = 16;
/// What an answer begins with: its length, its code, a parameter.
const ANSWER: usize = 8;
/// Longest request: an answer has to have room behind it.
const REQUEST_MAX: usize = 4096 - ANSWER;

/// How a request ends.
mod code {
    pub(super) const DONE: u16 = 0x0001;
    pub(super) const INVALID: u16 = 0x0003;
    pub(super) const NO_COMMAND: u16 = 0x0004;
    pub(super) const NOTHING_STORED: u16 = 0x0005;
    pub(super) const NO_FORMAT: u16 = 0x0007;
    pub(super) const NO_IMAGE: u16 = 0x0008;
    pub(super) const NO_FACILITY: u16 = 0x0101;
}

/// A request.
struct Request {
    length: usize,
    parameters: [u32; 3],
}

/// Length and content behind the answer's header.
type Answer = Result<(u32, Vec<u8>), u16>;

/// Answers the request that `page` begins with: the answer, and where in the page it goes. Unset if its length cannot be one,
/// which is an operand exception.
pub fn answer(page: &[u8; 4096]) -> Option<(usize, Vec<u8>)> {
    let half_word = |at: usize| u16::from_be_bytes([page[at], page[at + 1]]);
    let word = |at: usize| u32::from(half_word(at)) << 16 | u32::from(half_word(at + 2));
    let length = usize::from(half_word(0));
    if !(REQUEST..=REQUEST_MAX).contains(&length) || length % 8 != 0 {
        return None;
    }
    let request = Request {
        length,
        parameters: [word(4), word(8), word(12)],
    };
    let (code, (parameter, mut data)) = match request.answer(half_word(2)) {
        Ok(answer) => (code::DONE, answer),
        Err(code) => (code, (0, Vec::new())),
    };
    data.truncate(REQUEST_MAX - length);
    let mut answer = Vec::with_capacity(ANSWER + data.len());
    // A page has less than 64 KiB.
    answer.extend(((ANSWER + data.len()) as u16).to_be_bytes());
    answer.extend(code.to_be_bytes());
    answer.extend(parameter.to_be_bytes());
    answer.extend(data);
    Some((length, answer))
}

impl Request {
    fn answer(&self, command: u16) -> Answer {
        match command {
            0x0002 => self.channel_paths(),
            0x0010 => self.characteristics(),
            0x0031 => self.enable(),
            // Store event information: there is none, as no channel path changes.
            0x000e => Err(code::NOTHING_STORED),
            _ => Err(code::NO_COMMAND),
        }
    }

    /// Checks the length, and that no bits are set that have to be zero.
    fn require(&self, length: usize, zero: [u32; 3]) -> Result<(), u16> {
        let mut set = self.parameters.iter().zip(zero).map(|(is, zero)| is & zero);
        if self.length != length || set.any(|bits| bits != 0) {
            return Err(code::INVALID);
        }
        Ok(())
    }

    /// Store channel-path description: those of a range, of which 0 is the only one.
    fn channel_paths(&self) -> Answer {
        self.require(REQUEST, [0xc000_f000, 0xffff_ff00, u32::MAX])?;
        let [first, last, _] = self.parameters;
        if first & 0x0f00_0000 != 0 {
            return Err(code::NO_FORMAT);
        }
        if first & 0x00ff_0000 != 0 {
            return Err(code::NO_IMAGE);
        }
        if (last as u8) < first as u8 {
            return Err(code::INVALID);
        }
        let format = match first >> 8 & 0xf {
            0 | 1 => first >> 28 & 1,
            other => other,
        };
        let size = match format {
            0 => 8,
            1 => 32,
            _ => return Err(code::NO_FORMAT),
        };
        let mut paths = Vec::new();
        if first as u8 == 0 {
            // It is valid; its type and its number.
            paths.extend([0x80, 0, CHANNEL_PATH_TYPE, 0]);
            paths.resize(size, 0);
        }
        Ok((format, paths))
    }

    /// Store channel-subsystem characteristics: of this instruction and in general, none beyond what every channel
    /// subsystem has.
    fn characteristics(&self) -> Answer {
        /// 510 words and 508: with the header, the longest answer that fits behind the request.
        const BYTES: usize = 4 * (510 + 508);
        self.require(REQUEST, [0xdff0_00ff, u32::MAX, u32::MAX])?;
        let first = self.parameters[0];
        if first & 0x000f_0000 != 0 {
            return Err(code::NO_FORMAT);
        }
        if first & 0x0000_ff00 != 0 {
            return Err(code::NO_IMAGE);
        }
        Ok((0, vec![0; BYTES]))
    }

    /// Set domain attributes: more subchannel sets and images, of which there are none.
    fn enable(&self) -> Answer {
        self.require(0x400, [0xf0ff_0000, 0, 0])?;
        if self.parameters[0] & 0x0f00_0000 != 0 {
            return Err(code::NO_FORMAT);
        }
        Err(code::NO_FACILITY)
    }
}
