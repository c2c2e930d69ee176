//! Device configuration space (virtio 1.3, section 2.5).

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The configuration bytes of one device, shared by the device (which changes them) and its
/// transport (which shows them to the driver), so that a driver's read never waits for the device.
#[derive(Debug)]
pub struct ConfigSpace {
    state: Mutex<State>,
    /// What the driver may write.
    writable: Range<usize>,
    call: EventFd,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    generation: u8,
}

impl ConfigSpace {
    /// A space that starts out as `bytes`; its length never changes.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new(bytes: Vec<u8>) -> io::Result<Self> {
        Self::with_writable(bytes, 0..0)
    }

    /// The same, where the bytes in `writable` are the driver's: it reads what it wrote there, at
    /// once, and the device looks there when it wants to know.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_writable(bytes: Vec<u8>, writable: Range<usize>) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                bytes,
                generation: 0,
            }),
            writable,
            call: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// How many bytes it has. Any thread.
    pub fn len(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Whether the device has no configuration. Any thread.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `data` from `offset`; bytes past the end read as zero. Any thread.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        let state = self.lock();
        for (i, byte) in data.iter_mut().enumerate() {
            let position = offset.checked_add(i);
            *byte = position
                .and_then(|p| state.bytes.get(p))
                .copied()
                .unwrap_or(0);
        }
    }

    /// What the driver writes at `offset`; all but the bytes that are its own is dropped. Any thread.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let mut state = self.lock();
        for (i, byte) in data.iter().enumerate() {
            let position = offset.saturating_add(i);
            if self.writable.contains(&position)
                && let Some(to) = state.bytes.get_mut(position)
            {
                *to = *byte;
            }
        }
    }

    /// Changes the bytes at `offset` and tells the driver by a configuration change interrupt.
    /// Bytes past the end are dropped. The device's thread.
    ///
    /// # Errors
    /// When the interrupt's eventfd cannot be written.
    pub fn update(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        {
            let mut state = self.lock();
            let room = state.bytes.get_mut(offset..).unwrap_or_default();
            for (to, from) in room.iter_mut().zip(data) {
                *to = *from;
            }
            state.generation = state.generation.wrapping_add(1);
        }
        self.interrupt()
    }

    /// A number that changes whenever the bytes do (section 2.5.1). Any thread.
    pub fn generation(&self) -> u8 {
        self.lock().generation
    }

    /// Sends a configuration change interrupt, also used when the device needs a reset.
    ///
    /// # Errors
    /// When the interrupt's eventfd cannot be written.
    pub fn interrupt(&self) -> io::Result<()> {
        self.call.write(1)
    }

    /// The eventfd of the configuration change interrupt, for the transport to bind.
    pub fn call(&self) -> &EventFd {
        &self.call
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the bytes half-written in a way that matters to the guest.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_end_are_zero_and_updates_past_the_end_are_dropped() {
        let space = ConfigSpace::new(vec![1, 2, 3, 4]).unwrap();
        let mut data = [0xff; 4];
        space.read(2, &mut data);
        assert_eq!(data, [3, 4, 0, 0]);
        space.read(usize::MAX, &mut data);
        assert_eq!(data, [0; 4]);
        space.update(3, &[9, 9]).unwrap();
        space.update(100, &[9]).unwrap();
        space.read(0, &mut data);
        assert_eq!(data, [1, 2, 3, 9]);
    }

    #[test]
    fn a_driver_writes_its_own_bytes_alone() {
        let space = ConfigSpace::with_writable(vec![1, 2, 3, 4], 1..3).unwrap();
        space.write(0, &[9; 8]);
        space.write(usize::MAX, &[9; 8]);
        let mut data = [0; 4];
        space.read(0, &mut data);
        assert_eq!(data, [1, 9, 9, 4]);
        assert!(space.call().read().is_err(), "it knows already");
    }

    #[test]
    fn an_update_changes_the_generation_and_interrupts() {
        let space = ConfigSpace::new(vec![0; 2]).unwrap();
        let before = space.generation();
        space.update(0, &[1]).unwrap();
        assert_ne!(space.generation(), before);
        assert_eq!(space.call().read().unwrap(), 1);
    }
}
