//! MSI-X: the interrupts of one PCI function (PCI Local Bus 3.0, section 6.8.2).
//!
//! A vector that may fire is one whose eventfds are bound to its message in the hypervisor. Masking
//! undoes the binding, so that signals stay in the eventfds: these are the pending bits. Unmasking
//! binds again, and the hypervisor delivers what is pending.

use std::sync::Arc;

use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

use crate::fabric::{Fabric, Gsi, Interrupt, MsiMessage};
use crate::log_limit::LogLimit;

/// Bytes of a table entry: address (8), data (4), vector control (4).
pub(crate) const ENTRY_SIZE: usize = 16;

/// Message control, upper byte: enable, and mask of the whole function.
pub(crate) const CONTROL_ENABLE: u16 = 1 << 15;
pub(crate) const CONTROL_MASK: u16 = 1 << 14;

/// Vector control: mask of the vector.
const VECTOR_MASK: u32 = 1;

/// The vectors of one function.
pub(crate) struct Msix {
    outside: Outside,
    enabled: bool,
    masked: bool,
    vectors: Vec<Vector>,
}

/// Where bindings are made, and how often the log told that they were refused: a guest can have
/// that with a message that makes no sense.
struct Outside {
    fabric: Arc<dyn Fabric>,
    limit: LogLimit,
}

/// A table entry, and the eventfds that raise it.
struct Vector {
    message: MsiMessage,
    masked: bool,
    /// Reserved when the driver first uses the vector, and kept.
    gsi: Option<Gsi>,
    sources: Vec<Source>,
}

struct Source {
    call: Arc<EventFd>,
    bound: bool,
}

impl Msix {
    pub(crate) fn new(fabric: Arc<dyn Fabric>, vectors: u16) -> Self {
        let vector = || Vector {
            message: MsiMessage::default(),
            masked: true,
            gsi: None,
            sources: Vec::new(),
        };
        Self {
            outside: Outside {
                fabric,
                limit: LogLimit::default(),
            },
            enabled: false,
            masked: false,
            vectors: (0..vectors).map(|_| vector()).collect(),
        }
    }

    /// Whether `vector` can be used; reserves its route at the first time.
    pub(crate) fn reserve(&mut self, vector: u16) -> bool {
        let Some(entry) = self.vectors.get_mut(usize::from(vector)) else {
            return false;
        };
        if entry.gsi.is_none() {
            match self.outside.fabric.allocate_route() {
                Ok(gsi) => entry.gsi = Some(gsi),
                Err(error) if self.outside.limit.allows() => {
                    warn!("cannot reserve an interrupt for a PCI device: {error}");
                }
                Err(_) => {}
            }
        }
        entry.gsi.is_some()
    }

    /// From now on `call` raises `vector`; several may raise the same one. Does nothing for a
    /// vector that was not reserved.
    pub(crate) fn attach(&mut self, vector: u16, call: Arc<EventFd>) {
        if let Some(entry) = self.vectors.get_mut(usize::from(vector)) {
            entry.sources.push(Source { call, bound: false });
            let open = self.enabled && !self.masked;
            entry.update(&self.outside, open);
        }
    }

    /// Undoes all of [`Self::attach`].
    pub(crate) fn detach_all(&mut self) {
        for entry in &mut self.vectors {
            entry.update(&self.outside, false);
            entry.sources.clear();
        }
    }

    /// Gives the routes back. After [`Self::detach_all`].
    pub(crate) fn release(&mut self) {
        let routes = self.vectors.iter_mut().filter_map(|entry| entry.gsi.take());
        routes.for_each(|gsi| self.outside.fabric.free_route(gsi));
    }

    /// The guest wrote the capability's message control.
    pub(crate) fn set_control(&mut self, control: u16) {
        self.enabled = control & CONTROL_ENABLE != 0;
        self.masked = control & CONTROL_MASK != 0;
        let open = self.enabled && !self.masked;
        for entry in &mut self.vectors {
            entry.update(&self.outside, open);
        }
    }

    /// Fills `data` from the table; zeros past its end.
    pub(crate) fn table_read(&self, offset: usize, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            let position = offset + i;
            *byte = self
                .vectors
                .get(position / ENTRY_SIZE)
                .and_then(|entry| entry.bytes().get(position % ENTRY_SIZE).copied())
                .unwrap_or(0);
        }
    }

    /// A write to the table: of an aligned double or quad word, others are undefined (section
    /// 6.8.2) and ignored.
    pub(crate) fn table_write(&mut self, offset: usize, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len()) {
            return;
        }
        let open = self.enabled && !self.masked;
        if let Some(entry) = self.vectors.get_mut(offset / ENTRY_SIZE) {
            entry.write(offset % ENTRY_SIZE, data, &self.outside, open);
        }
    }

    /// Fills `data` from the pending bits; zeros past their end.
    pub(crate) fn pending_read(&self, offset: usize, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            let first = (offset + i).saturating_mul(8);
            let vectors = self.vectors.iter().skip(first).take(8).enumerate();
            *byte = vectors.fold(0, |bits, (bit, vector)| {
                bits | u8::from(vector.is_pending()) << bit
            });
        }
    }
}

impl Vector {
    fn bytes(&self) -> [u8; ENTRY_SIZE] {
        let control = if self.masked { VECTOR_MASK } else { 0 };
        let value = u128::from(self.message.address)
            | u128::from(self.message.data) << 64
            | u128::from(control) << 96;
        value.to_le_bytes()
    }

    fn write(&mut self, offset: usize, data: &[u8], outside: &Outside, open: bool) {
        let mut bytes = self.bytes();
        for (to, from) in bytes.iter_mut().skip(offset).zip(data) {
            *to = *from;
        }
        let value = u128::from_le_bytes(bytes);
        let message = MsiMessage {
            // The low two bits are reserved and zero.
            address: value as u64 & !3,
            data: (value >> 64) as u32,
        };
        if message != self.message {
            // A binding is for one message.
            self.update(outside, false);
            self.message = message;
        }
        self.masked = (value >> 96) as u32 & VECTOR_MASK != 0;
        self.update(outside, open);
    }

    /// Binds or unbinds the eventfds; `open` is whether the function as a whole may interrupt.
    fn update(&mut self, outside: &Outside, open: bool) {
        let (Some(gsi), bind) = (self.gsi, open && !self.masked) else {
            return;
        };
        for source in self.sources.iter_mut().filter(|s| s.bound != bind) {
            let done = if bind {
                let interrupt = Interrupt::Msi(self.message);
                outside.fabric.bind_call(gsi, interrupt, &source.call)
            } else {
                outside.fabric.unbind_call(gsi, &source.call)
            };
            match done {
                Ok(()) => source.bound = bind,
                Err(error) if outside.limit.allows() => {
                    warn!("cannot change the binding of interrupt {}: {error}", gsi.0);
                }
                Err(_) => {}
            }
        }
    }

    /// Whether a signal waits for the vector to be unmasked.
    fn is_pending(&self) -> bool {
        self.sources.iter().filter(|s| !s.bound).any(|source| {
            // Looks by taking the counter and putting it back, which loses no signal: those that
            // come in between add to it. Nothing binds the eventfd meanwhile.
            match source.call.read() {
                Ok(count) => source.call.write(count).is_ok(),
                Err(_) => false,
            }
        })
    }
}
