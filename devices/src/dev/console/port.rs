//! One port: what flows in its two directions, and who has it open.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use tracing::debug;
use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;

use super::Streams;
use super::control::{Notices, ToDriver};
use crate::Memory;
use crate::device::{DeviceError, Token, Watch};
use crate::queue::VirtQueue;
use crate::queue::buffers::{Buffers, Slice};
use crate::queue::turn::{Served, Turn, again, take_turn};
use crate::stream::{Input, Output, Read, Spool, Written};

/// The most that one turn moves, for the other devices on the loop.
const TURN_BYTES: usize = 1 << 20;
/// The most that is read into one chain; Linux' have a page.
const MAX_READ: usize = 64 << 10;

/// What a port is to the guest.
#[derive(Debug)]
pub(super) enum Kind {
    /// A terminal line with a driver in the guest's kernel.
    Console,
    /// A stream for a process in the guest.
    Named(String),
}

#[derive(Debug)]
pub(super) struct Port {
    kind: Kind,
    source: Source,
    sink: Sink,
    /// What the driver does not know yet.
    pub(super) notices: Notices,
    guest_open: bool,
    host_open: bool,
    /// The guest closed the port; the output ends after what is in the transmit queue.
    closing: bool,
}

#[derive(Debug)]
struct Source {
    input: Option<Input>,
    watched: bool,
}

#[derive(Debug)]
struct Sink {
    output: Target,
    /// A chain that the output took only in part.
    held: Option<Buffers>,
    watched: bool,
    /// The reader has left just now.
    abandoned: bool,
}

#[derive(Debug)]
enum Target {
    Nothing,
    /// The guest waits for it.
    Stream(Output),
    /// The guest must not wait for it.
    Spool(Spool),
}

/// What became of one chain to transmit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// The output takes no more now.
    Blocked,
    /// Enough for one turn.
    Exhausted,
}

impl Port {
    pub(super) fn new(kind: Kind, streams: Streams) -> Self {
        let output = match (&kind, streams.output) {
            (Kind::Console, output) => Target::Spool(Spool::new(output)),
            (Kind::Named(_), Some(output)) => Target::Stream(output),
            (Kind::Named(_), None) => Target::Nothing,
        };
        Self {
            kind,
            source: Source {
                input: streams.input,
                watched: false,
            },
            sink: Sink {
                output,
                held: None,
                watched: false,
                abandoned: false,
            },
            notices: Notices::default(),
            guest_open: false,
            host_open: true,
            closing: false,
        }
    }

    /// How the driver is told what the port is.
    pub(super) fn identity(&self) -> ToDriver<'_> {
        match &self.kind {
            Kind::Console => ToDriver::Console,
            Kind::Named(name) => ToDriver::Name(name),
        }
    }

    /// The driver has set the port up, and is to hear all about it.
    pub(super) fn announce(&mut self) {
        self.notices.open = Some(self.host_open);
        self.notices.identity = true;
        self.notices.resize = matches!(self.kind, Kind::Console);
    }

    /// The guest opened the port. Only now it takes input: Linux drops what comes before.
    pub(super) fn open(&mut self) {
        self.guest_open = true;
        self.closing = false;
    }

    /// The guest closed the port; [`Self::transmit`] ends the output.
    pub(super) fn close(&mut self) {
        self.guest_open = false;
        self.closing = matches!(self.kind, Kind::Named(_));
    }

    /// The driver is gone.
    pub(super) fn reset(&mut self) {
        self.source.watched = false;
        self.sink.watched = false;
        self.sink.held = None;
        self.notices = Notices::default();
        self.guest_open = false;
        self.closing = false;
    }

    /// Moves input into the driver's buffers, until one of the two is used up.
    pub(super) fn receive(
        &mut self,
        queue: &mut VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if !self.guest_open {
            return Ok(());
        }
        let Some(input) = &self.source.input else {
            return Ok(());
        };
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        let mut ended = false;
        let turn = take_turn(queue, |chain| {
            let buffers = Buffers::writable(chain, size)?;
            let slices = buffers.slices(&memory, MAX_READ)?;
            if slices.is_empty() {
                // Reading nothing would look like the end.
                return Ok(Served::Used(0));
            }
            Ok(match input.read(&slices) {
                // At most MAX_READ.
                Read::Data(count) => Served::Used(count as u32),
                Read::WouldBlock => Served::Refused,
                Read::End => {
                    ended = true;
                    Served::Refused
                }
            })
        })?;
        if ended {
            self.source.end(watch);
            self.host_open = false;
            self.notices.open = Some(false);
        } else if turn == Turn::Waiting {
            let fd = input.as_raw_fd();
            watch_once(&mut self.source.watched, fd, token, EventSet::IN, watch)?;
        }
        Ok(())
    }

    /// Moves what the guest wrote into the output, until one takes or gives no more. Returns
    /// whether all of it is out.
    pub(super) fn transmit(
        &mut self,
        queue: &mut VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<bool, DeviceError> {
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        let mut room = TURN_BYTES;
        let sink = &mut self.sink;
        let mut progress = Progress::Done;
        if let Some(mut held) = sink.held.take() {
            progress = sink.write(&mut held, &memory, &mut room, watch)?;
            if progress == Progress::Done {
                queue.push(held.head(), 0)?;
            } else {
                sink.held = Some(held);
            }
        }
        let mut turn = Turn::Waiting;
        if progress == Progress::Done {
            turn = take_turn(queue, |chain| {
                let mut buffers = Buffers::readable(chain, size)?;
                progress = sink.write(&mut buffers, &memory, &mut room, watch)?;
                if progress == Progress::Done {
                    return Ok(Served::Used(0));
                }
                sink.held = Some(buffers);
                Ok(Served::Held)
            })?;
        }
        if progress == Progress::Exhausted {
            again(queue);
        }
        let blocked_on = sink.flush();
        if let Some(fd) = blocked_on {
            watch_once(&mut sink.watched, fd, token, EventSet::OUT, watch)?;
        }
        if turn == Turn::Empty && self.closing {
            self.closing = false;
            sink.end(watch);
        }
        if std::mem::take(&mut sink.abandoned) {
            // The writer in the guest is to end, as one at the other end of a pipe does.
            self.host_open = false;
            self.notices.open = Some(false);
        }
        Ok(turn == Turn::Empty && blocked_on.is_none())
    }
}

impl Source {
    fn end(&mut self, watch: &mut dyn Watch) {
        if let Some(input) = self.input.take()
            && std::mem::take(&mut self.watched)
        {
            watch.unwatch(input.as_raw_fd());
        }
    }
}

impl Sink {
    /// Writes what is left of `buffers`, at most `room` bytes of it.
    fn write(
        &mut self,
        buffers: &mut Buffers,
        memory: &Memory,
        room: &mut usize,
        watch: &mut dyn Watch,
    ) -> Result<Progress, DeviceError> {
        loop {
            let slices = match self.output {
                Target::Nothing => return Ok(Progress::Done),
                _ => buffers.slices(memory, *room)?,
            };
            if slices.is_empty() {
                return Ok(if *room == 0 {
                    Progress::Exhausted
                } else {
                    Progress::Done
                });
            }
            let count = match self.take(&slices) {
                Written::Bytes(count) => count,
                Written::WouldBlock => return Ok(Progress::Blocked),
                Written::Gone => {
                    debug!("nobody reads what the guest writes to a port any more");
                    self.abandoned = true;
                    self.end(watch);
                    return Ok(Progress::Done);
                }
            };
            buffers.advance(count);
            *room = room.saturating_sub(count);
        }
    }

    fn take(&mut self, slices: &[Slice<'_>]) -> Written {
        match &mut self.output {
            Target::Nothing => Written::Gone,
            Target::Stream(output) => output.write(slices),
            Target::Spool(spool) => {
                spool.take_slices(slices);
                Written::Bytes(slices.iter().map(|slice| slice.len()).sum())
            }
        }
    }

    /// Returns the descriptor that has to become writable before more can go out.
    fn flush(&mut self) -> Option<RawFd> {
        match &mut self.output {
            Target::Nothing => None,
            Target::Stream(output) => self.held.as_ref().map(|_| output.as_raw_fd()),
            Target::Spool(spool) => {
                spool.flush();
                spool.blocked_on()
            }
        }
    }

    fn end(&mut self, watch: &mut dyn Watch) {
        if let Target::Stream(output) = std::mem::replace(&mut self.output, Target::Nothing) {
            if std::mem::take(&mut self.watched) {
                watch.unwatch(output.as_raw_fd());
            }
            output.close();
        }
    }
}

/// Watches `fd` for as long as the device runs. Edge-triggered: it is watched from the moment that
/// it blocks, each event is followed by moving as much as possible, and while the queue is what
/// keeps more from moving, a ready descriptor does not wake the loop.
fn watch_once(
    watched: &mut bool,
    fd: RawFd,
    token: Token,
    events: EventSet,
    watch: &mut dyn Watch,
) -> Result<(), DeviceError> {
    if !*watched {
        let events = events | EventSet::EDGE_TRIGGERED;
        watch
            .watch(fd, token, events)
            .map_err(|source| DeviceError::Host {
                what: "watch a stream of the console".to_owned(),
                source,
            })?;
        *watched = true;
    }
    Ok(())
}
