//! One device with its queues on an event loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use event_manager::{Error, EventOps, Events, MutEventSubscriber};
use tracing::error;
use virtio_queue::QueueT;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::handle::{Command, DeviceHandle};
use super::run_state::Shared;
use super::{EventLoop, Subscriber};
use crate::device::{Activation, DeviceError, Token, VirtioDevice, Watch};
use crate::queue::VirtQueue;

/// An event's data says what it is: commands, the kick of a queue (this bit and the index), or one
/// of the device's tokens (16 bits).
const COMMANDS: u32 = 1 << 17;
const KICK: u32 = 1 << 16;

/// Gives a device to a loop, on whose thread it lives from now on. The handle is for its transport.
///
/// # Errors
/// When no eventfd can be made.
pub fn add_device(
    event_loop: &mut EventLoop,
    device: Box<dyn VirtioDevice>,
) -> io::Result<DeviceHandle> {
    let (sender, commands) = channel();
    let sent = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let shared = Arc::new(Shared::new(device.traits()));
    let handle = DeviceHandle::new(sender, sent.try_clone()?, Arc::clone(&shared));
    event_loop.add_subscriber(Worker {
        device,
        shared,
        commands,
        sent,
        queues: None,
        watched: Vec::new(),
    });
    Ok(handle)
}

/// A device, and while it is started its queues and the descriptors watched for it.
struct Worker {
    device: Box<dyn VirtioDevice>,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// Signalled after a command was sent.
    sent: EventFd,
    /// Those that the device left to the loop; `None` while it is not started.
    queues: Option<Vec<VirtQueue>>,
    watched: Vec<RawFd>,
}

/// The device's view of epoll.
struct Watcher<'a, 'b> {
    ops: &'a mut EventOps<'b>,
    watched: &'a mut Vec<RawFd>,
}

impl Worker {
    fn execute_commands(&mut self, ops: &mut EventOps<'_>) {
        // Read before the commands are looked at: one that comes later wakes the loop again.
        let _ = self.sent.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Start(activation) => self.start(activation, ops),
                Command::WriteConfig { offset, data } => {
                    self.shared.end_write();
                    self.device.config_written(offset, &data);
                }
                Command::Stop => self.stop(ops),
            }
        }
    }

    /// Starts the device; the driver hears of it if it cannot.
    fn start(&mut self, mut activation: Activation, ops: &mut EventOps<'_>) {
        let mut watcher = Watcher {
            ops,
            watched: &mut self.watched,
        };
        let started = self
            .device
            .start(&mut activation, &mut watcher)
            .and_then(|()| watcher.add_kicks(&activation.queues));
        self.queues = Some(activation.queues);
        self.check(started, ops);
    }

    /// Hands an event of one of the watched descriptors to the device.
    fn serve(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let Some(queues) = &mut self.queues else {
            return;
        };
        let mut watcher = Watcher {
            ops,
            watched: &mut self.watched,
        };
        let data = events.data();
        let index = (data & !KICK) as usize;
        let result = if data & KICK == 0 {
            let token = Token(data as u16);
            self.device
                .ready(token, events.event_set(), queues, &mut watcher)
        } else if let Some(queue) = queues.get(index) {
            // Read before the queue is looked at: a kick that comes later wakes the loop again.
            // It fails only if there was none.
            let _ = queue.kick().read();
            self.device.kicked(index, queues, &mut watcher)
        } else {
            Ok(())
        };
        self.check(result, ops);
    }

    fn check(&mut self, result: Result<(), DeviceError>, ops: &mut EventOps<'_>) {
        if let Err(error) = result {
            self.shared.complain(&error);
            self.halt(ops);
            self.shared.broken();
        }
    }

    /// Removes what is watched, before the device closes it, and stops the device.
    fn halt(&mut self, ops: &mut EventOps<'_>) {
        for fd in self.watched.drain(..) {
            let _ = ops.remove(Events::empty_raw(fd));
        }
        if self.queues.is_some() {
            self.device.stop();
            self.queues = None;
        }
    }
}

impl MutEventSubscriber for Worker {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.data() == COMMANDS {
            self.execute_commands(ops);
        } else {
            self.serve(events, ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let commands = Events::with_data(&self.sent, COMMANDS, EventSet::IN);
        if let Err(error) = ops.add(commands) {
            let device = self.shared.traits.kind;
            error!("virtio {device}: the event loop cannot hear of its commands: {error:?}");
        }
    }
}

impl Subscriber for Worker {
    fn drained(&mut self, ops: &mut EventOps<'_>) -> bool {
        let Some(queues) = &mut self.queues else {
            return true;
        };
        let mut watcher = Watcher {
            ops,
            watched: &mut self.watched,
        };
        self.device.drained(queues, &mut watcher)
    }

    /// For a reset, too.
    fn stop(&mut self, ops: &mut EventOps<'_>) {
        self.halt(ops);
        self.shared.stopped();
    }
}

impl Watcher<'_, '_> {
    fn add_kicks(&mut self, queues: &[VirtQueue]) -> Result<(), DeviceError> {
        for (index, queue) in (0..KICK).zip(queues) {
            if queue.ring().ready() {
                self.add(queue.kick().as_raw_fd(), KICK | index, EventSet::IN)
                    .map_err(|source| DeviceError::Host {
                        what: format!("watch the kicks of queue {index}"),
                        source,
                    })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, fd: RawFd, data: u32, events: EventSet) -> io::Result<()> {
        let events = Events::with_data_raw(fd, data, events);
        if self.watched.contains(&fd) {
            self.ops.modify(events).map_err(io_error)
        } else {
            self.ops.add(events).map_err(io_error)?;
            self.watched.push(fd);
            Ok(())
        }
    }
}

impl Watch for Watcher<'_, '_> {
    fn watch(&mut self, fd: RawFd, token: Token, events: EventSet) -> io::Result<()> {
        self.add(fd, u32::from(token.0), events)
    }

    fn unwatch(&mut self, fd: RawFd) {
        if let Some(position) = self.watched.iter().position(|&watched| watched == fd) {
            self.watched.swap_remove(position);
            let _ = self.ops.remove(Events::empty_raw(fd));
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Epoll(errno) | Error::EventFd(errno) => errno.into(),
        other => io::Error::other(other),
    }
}
