//! An output that takes everything at once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use tracing::warn;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::{Output, Written};

/// What a slow reader may fall behind: several boot logs.
const CAPACITY: usize = 256 << 10;

/// An output for guest consoles. Linux writes to a console with a spinlock held and interrupts
/// off, until the device has taken it: a console that waits for its reader stops the guest. So this
/// keeps what the reader does not take yet, and drops what is too much, which it logs.
#[derive(Debug)]
pub struct Spool {
    /// Stays open when it is gone, since its descriptor may be watched.
    output: Option<Output>,
    gone: bool,
    waiting: VecDeque<u8>,
    dropping: bool,
}

impl Spool {
    /// A spool before `output`; without one, all is discarded.
    pub fn new(output: Option<Output>) -> Self {
        Self {
            gone: output.is_none(),
            output,
            waiting: VecDeque::new(),
            dropping: false,
        }
    }

    /// Takes all of `slices`.
    pub fn take_slices<B: BitmapSlice>(&mut self, slices: &[VolatileSlice<'_, B>]) {
        for slice in slices {
            let mut rest = slice.clone();
            while !rest.is_empty() && self.waiting.is_empty() {
                let Written::Bytes(count) = self.write(|output| output.write(&[rest.clone()]))
                else {
                    break;
                };
                match rest.offset(count) {
                    Ok(after) => rest = after,
                    Err(_) => return,
                }
            }
            if !rest.is_empty() && !self.gone {
                let mut copy = vec![0; rest.len().min(self.room())];
                rest.copy_to(&mut copy);
                self.keep(&copy, rest.len());
            }
        }
    }

    /// Takes all of `bytes`.
    pub fn take_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.waiting.is_empty() {
            let Written::Bytes(count) = self.write(|output| output.write_bytes(bytes)) else {
                break;
            };
            bytes = bytes.get(count..).unwrap_or_default();
        }
        if !bytes.is_empty() && !self.gone {
            let kept = bytes.get(..self.room()).unwrap_or(bytes);
            self.keep(kept, bytes.len());
        }
    }

    /// Hands on what waits; to be called when [`Self::blocked_on`] is writable.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            let result = self.write(|output| output.write_bytes(waiting.as_slices().0));
            self.waiting = waiting;
            match result {
                Written::Bytes(count) => drop(self.waiting.drain(..count)),
                Written::WouldBlock => return,
                Written::Gone => self.waiting.clear(),
            }
        }
        self.dropping = false;
    }

    /// The descriptor that has to become writable before more of what waits can go out; `None` if
    /// nothing waits.
    pub fn blocked_on(&self) -> Option<RawFd> {
        let output = self.output.as_ref()?;
        (!self.waiting.is_empty()).then(|| output.as_raw_fd())
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.waiting.len())
    }

    fn keep(&mut self, kept: &[u8], of: usize) {
        self.waiting.extend(kept);
        if kept.len() < of && !self.dropping {
            self.dropping = true;
            warn!("console output is dropped until its reader catches up");
        }
    }

    fn write(&mut self, write: impl FnOnce(&Output) -> Written) -> Written {
        let output = self.output.as_ref().filter(|_| !self.gone);
        let result = output.map_or(Written::Gone, write);
        self.gone |= result == Written::Gone;
        result
    }
}

/// Never fails and never blocks.
impl io::Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take_bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
