//! A serial line (16550A), for a kernel's earliest output and for kernels without virtio.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tracing::warn;
use vm_superio::{Trigger, serial};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::line::{Line, Outbox, signal};
use super::{MachineEvent, PortDevice};
use crate::stream::{Input, Read};

/// Interrupt Enable Register, and its bit that asks for received data.
const IER: u16 = 1;
const IER_RECEIVED: u8 = 1;
/// The receive FIFO of the model (a 16550A has 16 bytes; drivers read until it is empty).
const FIFO: usize = 64;

/// The line's registers, for the [`super::PortBus`].
#[derive(Debug)]
pub struct Serial {
    uart: serial::Serial<Interrupt, Room, Outbox>,
}

#[derive(Debug)]
struct Interrupt(EventFd);

/// Signalled when the guest has read all that the FIFO held, or starts to listen.
#[derive(Debug)]
struct Room(Arc<EventFd>);

impl Serial {
    /// How many ports; the first is 0x3f8 for the first line.
    pub const PORTS: u16 = 8;

    /// A line without a host side; that is a [`super::LineSubscriber`].
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new() -> io::Result<Self> {
        let room = Room(Arc::new(EventFd::new(EFD_NONBLOCK)?));
        let interrupt = Interrupt(EventFd::new(EFD_NONBLOCK)?);
        Ok(Self {
            uart: serial::Serial::with_events(interrupt, room, Outbox::new()?),
        })
    }

    /// Raises the line's interrupt (ISA: 4 for the first line) when it is written, edge-triggered.
    pub fn interrupt(&self) -> &EventFd {
        &self.uart.interrupt_evt().0
    }

    fn listens(&self) -> bool {
        self.uart.state().interrupt_enable & IER_RECEIVED != 0
    }
}

impl Line for Serial {
    fn events(&self) -> [Arc<EventFd>; 2] {
        [
            Arc::clone(&self.uart.events().0),
            Arc::clone(self.uart.writer().said()),
        ]
    }

    /// What comes before the guest listens stays where it is: the driver throws away what it finds in the FIFO when it
    /// starts.
    fn fill(&mut self, input: &Input) -> bool {
        while self.listens() {
            let mut buffer = [0; FIFO];
            let Some(room @ [_, ..]) = buffer.get_mut(..self.uart.fifo_capacity()) else {
                return false;
            };
            match input.read_bytes(room) {
                Read::Data(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Err(error) = self.uart.enqueue_raw_bytes(bytes) {
                        warn!("serial input lost: {error}");
                    }
                }
                Read::WouldBlock => return false,
                Read::End => return true,
            }
        }
        false
    }

    fn fetch(&mut self, said: &mut VecDeque<u8>) {
        self.uart.writer_mut().fetch(said);
    }
}

impl PortDevice for Serial {
    fn read(&mut self, offset: u16) -> u8 {
        // Below 8, by the range of ports.
        self.uart.read(offset as u8)
    }

    fn write(&mut self, offset: u16, value: u8) -> Option<MachineEvent> {
        if let Err(error) = self.uart.write(offset as u8, value) {
            warn!("serial line: {error}");
        }
        if offset == IER && self.listens() {
            signal(&self.uart.events().0);
        }
        None
    }
}

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

impl serial::SerialEvents for Room {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        signal(&self.0);
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod tests;
