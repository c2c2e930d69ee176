//! A console that a guest reaches by registers or calls, and the host's side of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, Events, MutEventSubscriber};
use tracing::warn;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::event_loop::Subscriber;
use crate::stream::{Backlog, Input, Output, Spool};

/// The guest's side of a line.
pub trait Line: Send {
    /// Two events: there is room for input, and the guest has said something ([`Outbox::said`]).
    fn events(&self) -> [Arc<EventFd>; 2];

    /// Takes from `input` what it has room for. Returns whether the input has ended.
    fn fill(&mut self, input: &Input) -> bool;

    /// Moves what the guest has said to `said`, which is empty.
    fn fetch(&mut self, said: &mut VecDeque<u8>);
}

/// What the guest has said and the event loop has not fetched yet. It waits here, and the event loop
/// is told that it does: a vCPU thread that writes to the host would need its system calls, and
/// would spend its time in them.
#[derive(Debug)]
pub struct Outbox {
    waiting: Backlog,
    /// Signalled when the first byte comes.
    said: Arc<EventFd>,
}

/// The host's side of a line, for [`crate::event_loop::EventLoop::add_subscriber`]: moves bytes
/// between the line and its two ends.
pub struct LineSubscriber {
    line: Arc<Mutex<dyn Line>>,
    input: Option<Input>,
    output: Spool,
    /// To watch, if there is an output.
    output_fd: Option<RawFd>,
    room: Arc<EventFd>,
    said: Arc<EventFd>,
    /// On its way from the line to the output; keeps its memory.
    passing: VecDeque<u8>,
}

impl Outbox {
    /// With nothing in it.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Backlog::default(),
            said: Arc::new(EventFd::new(EFD_NONBLOCK)?),
        })
    }

    /// Signalled when there is something.
    pub fn said(&self) -> &Arc<EventFd> {
        &self.said
    }

    /// Moves all of it to `to`, which is empty.
    pub fn fetch(&mut self, to: &mut VecDeque<u8>) {
        self.waiting.fetch(to);
    }
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

impl LineSubscriber {
    /// Connects `line` to its two ends. What the output's reader does not take in time is dropped.
    pub fn new(line: Arc<Mutex<dyn Line>>, input: Option<Input>, output: Option<Output>) -> Self {
        let [room, said] = lock(&line).events();
        Self {
            line,
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
        lock(&self.line).fetch(&mut self.passing);
        let (first, second) = self.passing.as_slices();
        self.output.take_bytes(first);
        self.output.take_bytes(second);
        self.passing.clear();
    }

    fn receive(&mut self, ops: &mut EventOps<'_>) {
        let Some(input) = &self.input else { return };
        if lock(&self.line).fill(input) {
            // A file was never watched.
            let _ = ops.remove(Events::empty(input));
            self.input = None;
        }
    }
}

impl MutEventSubscriber for LineSubscriber {
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

impl Subscriber for LineSubscriber {
    fn drained(&mut self, _: &mut EventOps<'_>) -> bool {
        self.send();
        self.output.flush();
        self.output.blocked_on().is_none()
    }
}

fn lock(line: &Mutex<dyn Line>) -> MutexGuard<'_, dyn Line + 'static> {
    // A panic elsewhere leaves registers that are still good to read and write.
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn signal(event: &EventFd) {
    // A full counter wakes the loop as well.
    let _ = event.write(1);
}
