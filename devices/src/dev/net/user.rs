//! The network device served in user space: packets are read from the tap and written to it.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use tracing::warn;
use vmm_sys_util::epoll::EventSet;

use super::interface::Interface;
use super::receive::{Received, Receiver};
use super::transmit::Transmitter;
use crate::Memory;
use crate::device::{Activation, DeviceError, Token, Traits, VirtioDevice, Watch};
use crate::log_limit::LogLimit;
use crate::queue::VirtQueue;
use crate::queue::turn::Turn;

/// The device. A pair's token is its index.
pub(super) struct UserNet {
    interface: Interface,
    /// Those that the driver may use; none while there is no driver.
    pairs: Vec<Pair>,
    limit: LogLimit,
}

/// A receive and a transmit queue, and the state of their tap.
struct Pair {
    receiver: Receiver,
    transmitter: Transmitter,
    /// The driver has to make buffers available before more packets are read.
    starved: bool,
    /// The tap has to take more before more packets are written.
    blocked: bool,
    /// The tap is of no use any more.
    gone: bool,
    watched: EventSet,
}

impl UserNet {
    pub(super) fn new(interface: Interface) -> Self {
        Self {
            interface,
            pairs: Vec::new(),
            limit: LogLimit::default(),
        }
    }

    fn receive(&mut self, index: usize, queues: &mut [VirtQueue]) -> Result<(), DeviceError> {
        let (Some(pair), Some(tap)) = (self.pairs.get_mut(index), self.interface.tap(index)) else {
            return Ok(());
        };
        let Some(queue) = queues.get_mut(2 * index).filter(|_| !pair.gone) else {
            return Ok(());
        };
        let received = pair.receiver.receive(queue, tap)?;
        pair.starved = received == Received::Starved;
        if let Received::Gone(error) = received {
            self.lose(index, error);
        }
        Ok(())
    }

    /// Returns whether nothing is left that the tap would take now.
    fn transmit(&mut self, index: usize, queues: &mut [VirtQueue]) -> Result<bool, DeviceError> {
        let (Some(pair), Some(tap)) = (self.pairs.get_mut(index), self.interface.tap(index)) else {
            return Ok(true);
        };
        let Some(queue) = queues.get_mut(2 * index + 1) else {
            return Ok(true);
        };
        let turn = pair.transmitter.transmit(queue, tap, !pair.gone)?;
        pair.blocked = turn == Turn::Waiting;
        Ok(turn != Turn::Yielded)
    }

    /// The tap of a pair has failed: what the driver sends is lost from now on, and nothing comes.
    fn lose(&mut self, index: usize, error: Errno) {
        if let Some(pair) = self.pairs.get_mut(index) {
            pair.gone = true;
        }
        if self.limit.allows() {
            let name = self.interface.name();
            warn!("the host's end of network interface {name} is lost: {error}");
        }
    }

    /// Has the event loop tell of what a pair waits for.
    fn schedule(&mut self, index: usize, watch: &mut dyn Watch) -> Result<(), DeviceError> {
        let (Some(pair), Some(tap)) = (self.pairs.get_mut(index), self.interface.tap(index)) else {
            return Ok(());
        };
        let wanted = pair.wanted(index < self.interface.pairs());
        if wanted == pair.watched {
            return Ok(());
        }
        pair.watched = wanted;
        let fd = tap.as_raw_fd();
        if wanted.is_empty() {
            // An interface that was removed would be heard of without end otherwise.
            watch.unwatch(fd);
            return Ok(());
        }
        // There are fewer pairs than tokens.
        watch
            .watch(fd, Token(index as u16), wanted)
            .map_err(|source| self.interface.host("watch the tap", source))
    }

    fn serve_control(
        &mut self,
        queue: usize,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if let Some(queue) = queues.get_mut(queue) {
            self.interface.serve_control(queue)?;
        }
        for index in 0..self.pairs.len() {
            // What the driver sent before its command was done has stayed in the queue.
            if index < self.interface.pairs() {
                self.transmit(index, queues)?;
            }
            self.schedule(index, watch)?;
        }
        Ok(())
    }
}

impl Pair {
    fn new(what: &str, features: u64, memory: &Arc<Memory>) -> Self {
        Self {
            receiver: Receiver::new(what, features, memory),
            transmitter: Transmitter::new(what, memory),
            starved: false,
            blocked: false,
            gone: false,
            watched: EventSet::empty(),
        }
    }

    fn wanted(&self, active: bool) -> EventSet {
        let mut wanted = EventSet::empty();
        if active && !self.gone {
            wanted.set(EventSet::IN, !self.starved);
            wanted.set(EventSet::OUT, self.blocked);
        }
        wanted
    }
}

impl VirtioDevice for UserNet {
    fn traits(&self) -> Traits {
        self.interface.traits(true)
    }

    fn start(
        &mut self,
        activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.interface.start(activation.features)?;
        for index in 0..self.interface.max_pairs() {
            let what = format!("{} {index}", self.interface.name());
            let features = self.interface.features();
            let pair = Pair::new(&what, features, &activation.memory);
            self.pairs.push(pair);
            self.schedule(index, watch)?;
        }
        Ok(())
    }

    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if self.interface.is_control(index) {
            return self.serve_control(index, queues, watch);
        }
        let pair = index / 2;
        if pair >= self.interface.pairs() {
            return Ok(());
        }
        if index.is_multiple_of(2) {
            // Otherwise it goes on when the tap is readable.
            if self.pairs.get(pair).is_some_and(|pair| pair.starved) {
                self.receive(pair, queues)?;
            }
        } else {
            self.transmit(pair, queues)?;
        }
        self.schedule(pair, watch)
    }

    fn ready(
        &mut self,
        token: Token,
        events: EventSet,
        queues: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let pair = usize::from(token.0);
        if pair >= self.interface.pairs() {
            // A tap that has just been detached has nothing to read, which is no failure.
            return Ok(());
        }
        if events.intersects(EventSet::ERROR | EventSet::HANG_UP) {
            self.lose(pair, Errno::ENODEV);
        }
        if events.contains(EventSet::IN) {
            self.receive(pair, queues)?;
        }
        if self.pairs.get(pair).is_some_and(|pair| pair.blocked) {
            self.transmit(pair, queues)?;
        }
        self.schedule(pair, watch)
    }

    /// What a tap does not take is lost: nobody waits for a network.
    fn drained(&mut self, queues: &mut [VirtQueue], _watch: &mut dyn Watch) -> bool {
        let pairs = 0..self.interface.pairs();
        pairs.fold(true, |drained, pair| {
            // A broken queue holds nothing.
            drained & self.transmit(pair, queues).unwrap_or(true)
        })
    }

    fn stop(&mut self) {
        self.pairs.clear();
        self.interface.stop();
    }
}
