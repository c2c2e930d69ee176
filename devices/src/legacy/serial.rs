//! A serial line (16550A), for a kernel's earliest output and for kernels without virtio.

use std::collections::VecDeque;
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
use crate::stream::{Backlog, Input, Output, Read, Spool};

/// Interrupt Enable Register, and its bit that asks for received data.
const IER: u16 = 1;
const IER_RECEIVED: u8 = 1;
/// The receive FIFO of the model (a 16550A has 16 bytes; drivers read until it is empty).
const FIFO: usize = 64;

/// The line's registers, for the [`super::PortBus`]. What the guest says waits here, and the event
/// loop is told that it does: a vCPU thread that writes to the host would need its system calls, and
/// would spend its time in them.
#[derive(Debug)]
pub struct Serial {
    uart: serial::Serial<Interrupt, Room, Outbox>,
}

/// The host's side of a line, for [`crate::event_loop::EventLoop::add_subscriber`]: moves bytes
/// between the line and its two ends.
#[derive(Debug)]
pub struct SerialSubscriber {
    serial: Arc<Mutex<Serial>>,
    input: Option<Input>,
    output: Spool,
    /// To watch, if there is an output.
    output_fd: Option<RawFd>,
    room: Arc<EventFd>,
    said: Arc<EventFd>,
    /// On its way from the line to the output; keeps its memory.
    passing: VecDeque<u8>,
}

#[derive(Debug)]
struct Interrupt(EventFd);

/// Signalled when the guest has read all that the FIFO held, or starts to listen.
#[derive(Debug)]
struct Room(Arc<EventFd>);

/// What the guest has said and the event loop has not fetched yet.
#[derive(Debug)]
struct Outbox {
    waiting: Backlog,
    /// Signalled when the first byte comes.
    said: Arc<EventFd>,
}

impl Serial {
    /// How many ports; the first is 0x3f8 for the first line.
    pub const PORTS: u16 = 8;

    /// A line without a host side.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new() -> io::Result<Self> {
        let room = Room(Arc::new(EventFd::new(EFD_NONBLOCK)?));
        let interrupt = Interrupt(EventFd::new(EFD_NONBLOCK)?);
        let outbox = Outbox {
            waiting: Backlog::default(),
            said: Arc::new(EventFd::new(EFD_NONBLOCK)?),
        };
        Ok(Self {
            uart: serial::Serial::with_events(interrupt, room, outbox),
        })
    }

    /// Raises the line's interrupt (ISA: 4 for the first line) when it is written, edge-triggered.
    pub fn interrupt(&self) -> &EventFd {
        &self.uart.interrupt_evt().0
    }

    /// Fills the FIFO from `input`. What comes before the guest listens stays where it is: the
    /// driver throws away what it finds in the FIFO when it starts. Returns whether the input has
    /// ended.
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
            signal(&self.uart.events().0);
        }
        None
    }
}

impl SerialSubscriber {
    /// Connects `serial` to its two ends. What the output's reader does not take in time is dropped.
    pub fn new(serial: Arc<Mutex<Serial>>, input: Option<Input>, output: Option<Output>) -> Self {
        let line = lock(&serial);
        let (room, said) = (
            Arc::clone(&line.uart.events().0),
            Arc::clone(&line.uart.writer().said),
        );
        drop(line);
        Self {
            serial,
            input,
            output_fd: output.as_ref().map(AsRawFd::as_raw_fd),
            output: Spool::new(output),
            room,
            said,
            passing: VecDeque::new(),
        }
    }

    /// Hands on what the guest has said. The line is not locked while it is written.
    fn send(&mut self) {
        let mut line = lock(&self.serial);
        line.uart.writer_mut().waiting.fetch(&mut self.passing);
        drop(line);
        let (first, second) = self.passing.as_slices();
        self.output.take_bytes(first);
        self.output.take_bytes(second);
        self.passing.clear();
    }

    fn receive(&mut self, ops: &mut EventOps<'_>) {
        let Some(input) = &self.input else { return };
        if lock(&self.serial).fill(input) {
            // A file was never watched.
            let _ = ops.remove(Events::empty(input));
            self.input = None;
        }
    }
}

impl MutEventSubscriber for SerialSubscriber {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        // Reading an eventfd fails only if it was read already.
        if fd == self.said.as_raw_fd() {
            let _ = self.said.read();
            self.send();
        } else if Some(fd) == self.output_fd {
            self.output.flush();
        } else {
            if fd == self.room.as_raw_fd() {
                let _ = self.room.read();
            }
            self.receive(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Edge-triggered: each event is followed by moving as much as possible, and what then
        // keeps more from moving ends by another event.
        let edge = EventSet::EDGE_TRIGGERED;
        let input = self.input.as_ref().map(AsRawFd::as_raw_fd);
        let fds = [
            (Some(self.room.as_raw_fd()), EventSet::IN),
            (Some(self.said.as_raw_fd()), EventSet::IN),
            (input, EventSet::IN | edge),
            (self.output_fd, EventSet::OUT | edge),
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
        self.send();
        self.output.flush();
        self.output.blocked_on().is_none()
    }
}

fn lock(serial: &Mutex<Serial>) -> MutexGuard<'_, Serial> {
    // A panic elsewhere leaves registers that are still good to read and write.
    serial.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(event: &EventFd) {
    // A full counter wakes the loop as well.
    let _ = event.write(1);
}

/// Never fails and never blocks.
impl io::Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let first = self.waiting.is_empty();
        self.waiting.push(bytes);
        if first {
            signal(&self.said);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
