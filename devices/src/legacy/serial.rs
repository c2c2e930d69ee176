//! A serial line (16550A), for a kernel's earliest output and for kernels without virtio.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, Events, MutEventSubscriber};
use tracing::warn;
use vm_superio::{Trigger, serial};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{MachineEvent, PortDevice};
use crate::event_loop::Subscriber;
use crate::stream::{Input, Output, Read, Spool};

/// Interrupt Enable Register, and its bit that asks for received data.
const IER: u16 = 1;
const IER_RECEIVED: u8 = 1;
/// The receive FIFO of the model (a 16550A has 16 bytes; drivers read until it is empty).
const FIFO: usize = 64;

/// The line's registers. Used by vCPU threads through the [`super::PortBus`], and by the event loop
/// through a [`SerialSubscriber`]; neither ever waits for the host's reader.
#[derive(Debug)]
pub struct Serial {
    uart: serial::Serial<Interrupt, Room, Spool>,
    input: Option<Input>,
    output: Option<RawFd>,
    room: EventFd,
}

/// Moves bytes between a line and its host ends on the event loop:
/// [`crate::event_loop::EventLoop::add_subscriber`].
#[derive(Debug)]
pub struct SerialSubscriber(Arc<Mutex<Serial>>);

#[derive(Debug)]
struct Interrupt(EventFd);

/// Signalled when the guest has read all that the FIFO held, or starts to listen.
#[derive(Debug)]
struct Room(EventFd);

impl Serial {
    /// How many ports; the first is 0x3f8 for the first line.
    pub const PORTS: u16 = 8;

    /// A line between the guest and the two ends. What the output's reader does not take in time
    /// is dropped.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new(input: Option<Input>, output: Option<Output>) -> io::Result<Self> {
        let room = EventFd::new(EFD_NONBLOCK)?;
        let interrupt = Interrupt(EventFd::new(EFD_NONBLOCK)?);
        let events = Room(room.try_clone()?);
        let raw_output = output.as_ref().map(AsRawFd::as_raw_fd);
        Ok(Self {
            uart: serial::Serial::with_events(interrupt, events, Spool::new(output)),
            input,
            output: raw_output,
            room,
        })
    }

    /// Raises the line's interrupt (ISA: 4 for the first line) when it is written, edge-triggered.
    pub fn interrupt(&self) -> &EventFd {
        &self.uart.interrupt_evt().0
    }

    /// Hands on output that its reader has not taken yet, as far as it takes it now. Returns the
    /// descriptor that has to become writable first, if there is more.
    pub fn flush(&mut self) -> Option<RawFd> {
        let spool = self.uart.writer_mut();
        spool.flush();
        spool.blocked_on()
    }

    /// Fills the FIFO from the input. What comes before the guest listens stays where it is: the
    /// driver throws away what it finds in the FIFO when it starts. Returns whether the input has
    /// ended.
    fn fill(&mut self) -> bool {
        while self.listens() {
            let mut buffer = [0; FIFO];
            let room = buffer.get_mut(..self.uart.fifo_capacity());
            let (Some(room @ [_, ..]), Some(input)) = (room, &self.input) else {
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

    fn listens(&self) -> bool {
        self.uart.state().interrupt_enable & IER_RECEIVED != 0
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
            // A full counter wakes the loop as well.
            let _ = self.room.write(1);
        }
        None
    }
}

impl SerialSubscriber {
    /// The host side of `serial`.
    pub fn new(serial: Arc<Mutex<Serial>>) -> Self {
        Self(serial)
    }

    fn lock(&self) -> MutexGuard<'_, Serial> {
        // A panic elsewhere leaves registers that are still good to read and write.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MutEventSubscriber for SerialSubscriber {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let mut serial = self.lock();
        if serial.output == Some(events.fd()) {
            serial.flush();
            return;
        }
        if events.fd() == serial.room.as_raw_fd() {
            // Fails only if it was read already.
            let _ = serial.room.read();
        }
        if serial.fill()
            && let Some(input) = serial.input.take()
        {
            // A file was never watched.
            let _ = ops.remove(Events::empty(&input));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let serial = self.lock();
        // Edge-triggered: each event is followed by moving as much as possible, and what then
        // keeps more from moving ends by another event.
        let edge = EventSet::EDGE_TRIGGERED;
        let input = serial.input.as_ref().map(AsRawFd::as_raw_fd);
        let fds = [
            (Some(serial.room.as_raw_fd()), EventSet::IN),
            (input, EventSet::IN | edge),
            (serial.output, EventSet::OUT | edge),
        ];
        for (fd, set) in fds {
            // Epoll refuses files, which are always ready and need no watching.
            if let Some(fd) = fd
                && let Err(error) = ops.add(Events::new_raw(fd, set))
                && !matches!(error, event_manager::Error::Epoll(e) if e.errno() == libc::EPERM)
            {
                warn!("cannot watch the ends of the serial line: {error}");
            }
        }
    }
}

impl Subscriber for SerialSubscriber {
    fn drained(&mut self, _: &mut EventOps<'_>) -> bool {
        self.lock().flush().is_none()
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
        // A full counter wakes the loop as well.
        let _ = self.0.write(1);
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod tests;
