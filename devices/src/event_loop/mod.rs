//! The event loop: one thread that serves all quiet devices and the monitor's own descriptors.
//!
//! ```text
//! vCPU thread ──DeviceHandle──▶ command ─┐
//! kick eventfds, host descriptors ───────┴▶ EventLoop ──▶ Worker ──▶ VirtioDevice
//! ```

pub(crate) mod handle;
mod worker;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use event_manager::{Error, EventOps, Events, MutEventSubscriber, SubscriberId};
use event_manager::{EventManager, RemoteEndpoint, SubscriberOps};
pub use vmm_sys_util::epoll::EventSet;

use crate::device::VirtioDevice;
pub use handle::DeviceHandle;
use handle::Link;
use worker::Worker;

/// Waits for events and hands them to devices and to the monitor's subscribers, on the thread that
/// calls [`Self::run`]. It may be built on one thread and run on another.
///
/// Order of use: `add_device` and `add_subscriber`, `run`, and when no vCPU runs any more `drain`.
pub struct EventLoop {
    manager: EventManager<Subscriber>,
    devices: Vec<SubscriberId>,
    stopped: Arc<AtomicBool>,
}

/// Ends [`EventLoop::run`], from any thread, and from within the loop too.
#[derive(Clone)]
pub struct Stopper {
    stopped: Arc<AtomicBool>,
    endpoint: RemoteEndpoint<Subscriber>,
}

/// What the loop hands events to.
pub(crate) enum Subscriber {
    /// A device; away while a command for it is executed.
    Device(Option<Box<Worker>>),
    /// Something of the monitor's.
    Monitor(Box<dyn MutEventSubscriber + Send>),
}

impl EventLoop {
    /// A loop without subscribers.
    ///
    /// # Errors
    /// When epoll or eventfd descriptors cannot be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            manager: EventManager::new()?,
            devices: Vec::new(),
            stopped: Arc::default(),
        })
    }

    /// Takes a device, which from now on lives on this loop's thread. The handle is for its
    /// transport.
    pub fn add_device(&mut self, device: Box<dyn VirtioDevice>) -> DeviceHandle {
        let link = Arc::new(Link::new(&*device));
        let worker = Box::new(Worker::new(device, Arc::clone(&link)));
        let id = self
            .manager
            .add_subscriber(Subscriber::Device(Some(worker)));
        self.devices.push(id);
        DeviceHandle::new(id, self.manager.remote_endpoint(), link)
    }

    /// Takes something of the monitor's: a signalfd, a socket, an exit event. Its `init` is called
    /// at once and registers its descriptors.
    pub fn add_subscriber(
        &mut self,
        subscriber: Box<dyn MutEventSubscriber + Send>,
    ) -> SubscriberId {
        self.manager.add_subscriber(Subscriber::Monitor(subscriber))
    }

    /// A handle that ends [`Self::run`].
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stopped: Arc::clone(&self.stopped),
            endpoint: self.manager.remote_endpoint(),
        }
    }

    /// Serves events until a [`Stopper`] is used, which may have happened before.
    ///
    /// # Errors
    /// When epoll_wait(2) fails.
    pub fn run(&mut self) -> Result<(), Error> {
        while !self.stopped.load(Ordering::Acquire) {
            self.turn(-1)?;
        }
        Ok(())
    }

    /// For the end of the VM, when no vCPU runs any more: lets every started device hand on what
    /// its queues still hold, serves events until all of it is out and `others_are` too, and stops
    /// the devices. How long that takes is up to those who read the output; a [`Stopper`] that is
    /// used meanwhile ends it, and what is left is lost.
    ///
    /// # Errors
    /// When epoll_wait(2) fails. The devices are stopped all the same.
    pub fn drain(&mut self, others_are: impl Fn() -> bool) -> Result<(), Error> {
        let result = self.wait_drained(others_are);
        for id in self.devices.clone() {
            lend(&mut self.manager, id, Worker::stop);
        }
        result
    }

    fn wait_drained(&mut self, others_are: impl Fn() -> bool) -> Result<(), Error> {
        self.stopped.store(false, Ordering::Release);
        // Commands that the vCPUs left behind.
        self.turn(0)?;
        let mut waiting = self.devices.clone();
        while !self.stopped.load(Ordering::Acquire) {
            waiting.retain(|&id| !lend(&mut self.manager, id, Worker::drained).unwrap_or(true));
            if waiting.is_empty() && others_are() {
                break;
            }
            self.turn(-1)?;
        }
        Ok(())
    }

    /// Waits at most `milliseconds` (-1: without end), and serves what happened.
    pub(crate) fn turn(&mut self, milliseconds: i32) -> Result<usize, Error> {
        self.manager.run_with_timeout(milliseconds)
    }
}

impl Stopper {
    /// Ends [`EventLoop::run`] once the events that it is at are served.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // Fails only if the counter is full, and then the loop wakes up all the same.
        let _ = self.endpoint.kick();
    }
}

impl MutEventSubscriber for Subscriber {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match self {
            Self::Device(Some(worker)) => worker.process(events, ops),
            Self::Device(None) => {}
            Self::Monitor(subscriber) => subscriber.process(events, ops),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Self::Monitor(subscriber) = self {
            subscriber.init(ops);
        }
    }
}

/// Calls `work` with the device `id` and its view of epoll. The worker is taken out meanwhile, as
/// the event manager lends only one of the two at a time.
pub(crate) fn lend<R>(
    manager: &mut dyn SubscriberOps<Subscriber = Subscriber>,
    id: SubscriberId,
    work: impl FnOnce(&mut Worker, &mut EventOps<'_>) -> R,
) -> Option<R> {
    let mut worker = match manager.subscriber_mut(id) {
        Ok(Subscriber::Device(worker)) => mem::take(worker)?,
        _ => return None,
    };
    let result = manager
        .event_ops(id)
        .ok()
        .map(|mut ops| work(&mut worker, &mut ops));
    if let Ok(Subscriber::Device(slot)) = manager.subscriber_mut(id) {
        *slot = Some(worker);
    }
    result
}

#[cfg(test)]
#[path = "event_loop_test.rs"]
mod tests;
