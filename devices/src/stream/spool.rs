//! An output that takes everything at once.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};

use tracing::warn;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::{Output, Written};

/// What a slow reader may fall behind: several boot logs.
const CAPACITY: usize = 256 << 10;

/// Bytes that wait for a slow reader, in a bounded number: what is too much is dropped, which is
/// logged.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    dropping: bool,
}

/// An output for guest consoles. Linux writes to a console with a spinlock held and interrupts
/// off, until the device has taken it: a console that waits for its reader stops the guest. So this
/// keeps what the reader does not take yet, and drops what is too much, which it logs.
#[derive(Debug)]
pub struct Spool {
    /// Stays open when it is gone, since its descriptor may be watched.
    output: Option<Output>,
    gone: bool,
    waiting: Backlog,
}

impl Backlog {
    /// Adds `bytes`, as far as there is room.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.get(..self.room()).unwrap_or(bytes);
        self.keep(kept, bytes.len());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Moves all of it to `to`, which is empty, and goes on with the memory of `to`.
    pub(crate) fn fetch(&mut self, to: &mut VecDeque<u8>) {
        std::mem::swap(&mut self.bytes, to);
        self.dropping = false;
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.bytes.len())
    }

    /// Adds `kept`, which there is room for, of so many bytes.
    fn keep(&mut self, kept: &[u8], of: usize) {
        self.bytes.extend(kept);
        if kept.len() < of && !self.dropping {
            self.dropping = true;
            warn!("console output is dropped until its reader catches up");
        }
    }
}

impl Spool {
    /// A spool before `output`; without one, all is discarded.
    pub fn new(output: Option<Output>) -> Self {
        Self {
            gone: output.is_none(),
            output,
            waiting: Backlog::default(),
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
                let mut copy = vec![0; rest.len().min(self.waiting.room())];
                rest.copy_to(&mut copy);
                self.waiting.keep(&copy, rest.len());
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
            self.waiting.push(bytes);
        }
    }

    /// Hands on what waits; to be called when [`Self::blocked_on`] is writable.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting.bytes);
            let result = self.write(|output| output.write_bytes(waiting.as_slices().0));
            self.waiting.bytes = waiting;
            match result {
                Written::Bytes(count) => drop(self.waiting.bytes.drain(..count)),
                Written::WouldBlock => return,
                Written::Gone => self.waiting.bytes.clear(),
            }
        }
        self.waiting.dropping = false;
    }

    /// The descriptor that has to become writable before more of what waits can go out; `None` if
    /// nothing waits.
    pub fn blocked_on(&self) -> Option<RawFd> {
        let output = self.output.as_ref()?;
        (!self.waiting.is_empty()).then(|| output.as_raw_fd())
    }

    fn write(&mut self, write: impl FnOnce(&Output) -> Written) -> Written {
        let output = self.output.as_ref().filter(|_| !self.gone);
        let result = output.map_or(Written::Gone, write);
        self.gone |= result == Written::Gone;
        result
    }
}
