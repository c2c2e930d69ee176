//! Eventfds that devices on subchannels hear of: an interruption of a subchannel needs its status changed first, so that no
//! hypervisor can raise it by itself.
//!
//! They are in an epoll set of their own, in which vCPU threads add and remove them; the event loop watches the set.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use tracing::error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::{ChannelSubsystem, SubchannelId};
use crate::event_loop::Subscriber;

/// How many signals are served before others on the loop have their turn.
const BATCH: usize = 16;

/// Where a device is to be: its subchannel, and what it hears of there.
#[derive(Clone)]
pub struct Place {
    number: u8,
    epoll: Arc<Epoll>,
}

/// Serves the signals of all devices of a channel subsystem. For an event loop, whose thread interrupts the guest then.
pub struct SignalSubscriber {
    css: Arc<ChannelSubsystem>,
}

impl Place {
    pub(super) fn new(number: u8, epoll: Arc<Epoll>) -> Self {
        Self { number, epoll }
    }

    /// Number of the subchannel, and of the device.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The word by which the guest names the subchannel.
    pub fn word(&self) -> u32 {
        SubchannelId::of(self.number.into()).word()
    }

    /// From now on the device is told by `name` when `event` is signalled; at once, if it was before.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn listen(&self, event: &EventFd, name: u32) -> io::Result<()> {
        let data = u64::from(self.number) << 32 | u64::from(name);
        // By edge: a device leaves a signal where it is while nobody can be told of it.
        let interest = EventSet::IN | EventSet::EDGE_TRIGGERED;
        self.control(
            ControlOperation::Add,
            event,
            EpollEvent::new(interest, data),
        )
    }

    /// Undoes [`Self::listen`].
    pub fn ignore(&self, event: &EventFd) {
        // Fails if there is nothing to undo.
        let _ = self.control(ControlOperation::Delete, event, EpollEvent::default());
    }

    fn control(
        &self,
        operation: ControlOperation,
        event: &EventFd,
        interest: EpollEvent,
    ) -> io::Result<()> {
        self.epoll.ctl(operation, event.as_raw_fd(), interest)
    }
}

impl SignalSubscriber {
    /// For the devices of `css`.
    pub fn new(css: Arc<ChannelSubsystem>) -> Self {
        Self { css }
    }

    /// Serves the signals there are. Returns whether that was all.
    fn serve(&self) -> bool {
        let mut events = [EpollEvent::default(); BATCH];
        let count = self.css.epoll().wait(0, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            let data = event.data();
            self.css.signalled((data >> 32) as u8, data as u32);
        }
        count < BATCH
    }
}

impl AsRawFd for SignalSubscriber {
    fn as_raw_fd(&self) -> RawFd {
        self.css.epoll().as_raw_fd()
    }
}

impl MutEventSubscriber for SignalSubscriber {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // The rest wakes the loop again.
        self.serve();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(self, EventSet::IN)) {
            error!("the event loop cannot hear of devices on subchannels: {error:?}");
        }
    }
}

impl Subscriber for SignalSubscriber {}
