//! What flows from the guest to the host: the driver's buffers into an output.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use tracing::debug;
use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;

use super::readiness::Readiness;
use crate::Memory;
use crate::device::{DeviceError, Token, Watch};
use crate::queue::VirtQueue;
use crate::queue::buffers::{Buffers, Slice};
use crate::queue::turn::{Served, Turn, take_turn};
use crate::stream::{Output, Spool, Written};

/// The most that one turn moves, for the other devices on the loop.
const TURN_BYTES: usize = 1 << 20;

/// What the guest writes to a port.
#[derive(Debug)]
pub(super) enum Sink {
    /// It goes into the output.
    Open(Flow),
    /// The guest closed the port: the output ends after what is in the transmit queue.
    Closing(Flow),
    /// There is no output, or it has ended: it is discarded.
    Closed,
    /// The reader has left: it is discarded, and the guest hears of it.
    Abandoned,
}

/// An output in use.
#[derive(Debug)]
pub(super) struct Flow {
    output: Target,
    state: State,
    readiness: Readiness,
}

/// Where the flow goes.
#[derive(Debug)]
enum Target {
    /// The guest waits for it.
    Stream(Output),
    /// The guest must not wait for it.
    Spool(Spool),
}

/// How a flow goes on.
#[derive(Debug, Default)]
enum State {
    /// With the next chain.
    #[default]
    Ready,
    /// With the rest of a chain, once the output takes more.
    Blocked(Buffers),
    /// With the rest of a chain, once other devices had their turn.
    Yielded(Buffers),
    /// Not at all: the reader has left.
    Broken,
}

impl Sink {
    /// A sink for a terminal, which does not stop the guest however slow its reader is.
    pub(super) fn console(output: Option<Output>) -> Self {
        Self::Open(Flow::new(Target::Spool(Spool::new(output))))
    }

    /// A sink for a stream, whose reader the guest waits for.
    pub(super) fn stream(output: Option<Output>) -> Self {
        output.map_or(Self::Closed, |output| {
            Self::Open(Flow::new(Target::Stream(output)))
        })
    }

    /// The guest opened the port, perhaps before its output has ended.
    pub(super) fn open(&mut self) {
        self.replace(|sink| match sink {
            Self::Closing(flow) => Self::Open(flow),
            sink => sink,
        });
    }

    /// The guest closed the port; [`Self::transmit`] ends the output. That of a terminal does not
    /// end.
    pub(super) fn close(&mut self) {
        self.replace(|sink| match sink {
            Self::Open(flow) if matches!(flow.output, Target::Stream(_)) => Self::Closing(flow),
            sink => sink,
        });
    }

    /// The driver is gone, and with it its chains and what was watched.
    pub(super) fn reset(&mut self) {
        self.replace(|sink| match sink {
            Self::Open(flow) | Self::Closing(flow) => Self::Open(Flow::new(flow.output)),
            sink => sink,
        });
    }

    pub(super) fn is_abandoned(&self) -> bool {
        matches!(self, Self::Abandoned)
    }

    /// Moves what the guest wrote into the output, until one takes or gives no more. Returns
    /// whether all of it is out.
    pub(super) fn transmit(
        &mut self,
        queue: &mut VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<bool, DeviceError> {
        let (Self::Open(flow) | Self::Closing(flow)) = self else {
            return Ok(take_turn(queue, |_| Ok(Served::Used(0)))? == Turn::Empty);
        };
        let turn = flow.transmit(queue)?;
        let all_out = flow.schedule(queue, token, watch)?;
        if let State::Broken = flow.state {
            debug!("nobody reads what the guest writes to a port any more");
            self.end(watch, Self::Abandoned);
        } else if turn == Turn::Empty && matches!(self, Self::Closing(_)) {
            self.end(watch, Self::Closed);
        }
        Ok(turn == Turn::Empty && all_out)
    }

    /// Ends the output.
    fn end(&mut self, watch: &mut dyn Watch, end: Self) {
        if let Self::Open(flow) | Self::Closing(flow) = std::mem::replace(self, end) {
            flow.end(watch);
        }
    }

    fn replace(&mut self, change: impl FnOnce(Self) -> Self) {
        *self = change(std::mem::replace(self, Self::Closed));
    }
}

impl Flow {
    fn new(output: Target) -> Self {
        Self {
            output,
            state: State::Ready,
            readiness: Readiness::default(),
        }
    }

    /// Moves the rest of a chain, then those in the queue.
    fn transmit(&mut self, queue: &mut VirtQueue) -> Result<Turn, DeviceError> {
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        let mut room = TURN_BYTES;
        if let State::Blocked(rest) | State::Yielded(rest) = std::mem::take(&mut self.state) {
            let head = rest.head();
            if self.write(rest, &memory, &mut room)? == Served::Held {
                return Ok(Turn::Waiting);
            }
            queue.push(head, 0)?;
        }
        take_turn(queue, |chain| match self.state {
            State::Broken => Ok(Served::Used(0)),
            _ => self.write(Buffers::readable(chain, size)?, &memory, &mut room),
        })
    }

    fn write(
        &mut self,
        buffers: Buffers,
        memory: &Memory,
        room: &mut usize,
    ) -> Result<Served, DeviceError> {
        self.state = self.output.write(buffers, memory, room)?;
        Ok(match self.state {
            State::Ready | State::Broken => Served::Used(0),
            State::Blocked(_) | State::Yielded(_) => Served::Held,
        })
    }

    /// Has the event loop come back when there is more to do. Returns whether nothing waits for
    /// the output to take more.
    fn schedule(
        &mut self,
        queue: &VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<bool, DeviceError> {
        let full = match (&mut self.output, &self.state) {
            (Target::Stream(output), State::Blocked(_)) => Some(output.as_raw_fd()),
            (Target::Stream(_), _) => None,
            (Target::Spool(spool), _) => {
                spool.flush();
                spool.blocked_on()
            }
        };
        if let Some(fd) = full {
            self.readiness.watch(fd, token, EventSet::OUT, watch)?;
        }
        if let State::Yielded(_) = self.state {
            queue.reschedule();
        }
        Ok(full.is_none())
    }

    fn end(mut self, watch: &mut dyn Watch) {
        self.readiness.unwatch(watch);
        if let Target::Stream(output) = self.output {
            output.close();
        }
    }
}

impl Target {
    /// Writes `buffers`, at most `room` bytes of them, which become fewer. Returns how it goes on.
    fn write(
        &mut self,
        mut buffers: Buffers,
        memory: &Memory,
        room: &mut usize,
    ) -> Result<State, DeviceError> {
        loop {
            if *room == 0 {
                return Ok(State::Yielded(buffers));
            }
            let slices = buffers.slices(memory, *room)?;
            if slices.is_empty() {
                return Ok(State::Ready);
            }
            match self.take(&slices) {
                Written::Bytes(count) => {
                    buffers.advance(count);
                    *room = room.saturating_sub(count);
                }
                Written::WouldBlock => return Ok(State::Blocked(buffers)),
                Written::Gone => return Ok(State::Broken),
            }
        }
    }

    fn take(&mut self, slices: &[Slice<'_>]) -> Written {
        match self {
            Self::Stream(output) => output.write(slices),
            Self::Spool(spool) => {
                spool.take_slices(slices);
                Written::Bytes(slices.iter().map(|slice| slice.len()).sum())
            }
        }
    }
}
