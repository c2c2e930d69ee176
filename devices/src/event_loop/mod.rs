//! The event loop: one thread that serves all quiet devices and the monitor's own descriptors.
//!
//! ```text
//! vCPU thread ──DeviceHandle──▶ command ─┐
//! kick eventfds, host descriptors ───────┴▶ EventLoop ──▶ Worker ──▶ VirtioDevice
//! ```
//!
//! The loop itself knows subscribers, not devices: [`add_device`] puts a device on one. There may
//! be several loops, each on a thread of its own.

mod handle;
mod run_state;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventManager, RemoteEndpoint, SubscriberId, SubscriberOps};
use libc::c_long;

pub use event_manager::{Error, EventOps, Events, MutEventSubscriber};
pub use handle::DeviceHandle;
pub use run_state::RunState;
pub use vmm_sys_util::epoll::EventSet;
pub use worker::add_device;

/// What a loop asks of the kernel, beside [`crate::seccomp::ANY_THREAD`] and what its subscribers do.
pub const SYSTEM_CALLS: [c_long; 3] = [
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
];

/// What an event loop serves. All methods are called on the loop's thread, except `init`, which is
/// called where the subscriber is added.
pub trait Subscriber: MutEventSubscriber + Send {
    /// The guest runs no more: hands on what is left, and returns whether all of it is out. If not,
    /// it is asked again after each event.
    fn drained(&mut self, ops: &mut EventOps<'_>) -> bool {
        let _ = ops;
        true
    }

    /// The end, after the last `drained`, whatever that returned.
    fn stop(&mut self, ops: &mut EventOps<'_>) {
        let _ = ops;
    }
}

/// A subscriber as the loop and the event manager share it.
type Shared = Arc<Mutex<dyn Subscriber>>;

/// Waits for events and hands them to subscribers, on the thread that calls [`Self::run`]. It may be
/// built on one thread and run on another.
///
/// Order of use: `add_subscriber`, `run`, and when no vCPU runs any more `drain`.
pub struct EventLoop {
    manager: EventManager<Shared>,
    subscribers: Vec<(SubscriberId, Shared)>,
    stopped: Arc<AtomicBool>,
}

/// Ends [`EventLoop::run`], from any thread, and from within the loop too.
#[derive(Clone)]
pub struct Stopper {
    stopped: Arc<AtomicBool>,
    endpoint: RemoteEndpoint<Shared>,
}

impl EventLoop {
    /// A loop without subscribers.
    ///
    /// # Errors
    /// When epoll or eventfd descriptors cannot be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            manager: EventManager::new()?,
            subscribers: Vec::new(),
            stopped: Arc::default(),
        })
    }

    /// Takes a subscriber: a device's worker, a signalfd, a socket. Its `init` is called at once and
    /// registers its descriptors.
    pub fn add_subscriber(&mut self, subscriber: impl Subscriber + 'static) {
        let subscriber: Shared = Arc::new(Mutex::new(subscriber));
        let id = self.manager.add_subscriber(Arc::clone(&subscriber));
        self.subscribers.push((id, subscriber));
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

    /// For the end of the VM, when no vCPU runs any more: lets every subscriber hand on what it
    /// still holds, serves events until all of it is out, and stops the subscribers. How long that
    /// takes is up to those who read the output; a [`Stopper`] that is used meanwhile ends it, and
    /// what is left is lost.
    ///
    /// # Errors
    /// When epoll_wait(2) fails. The subscribers are stopped all the same.
    pub fn drain(&mut self) -> Result<(), Error> {
        let result = self.wait_drained();
        self.ask_all(|subscriber, ops| subscriber.stop(ops));
        result
    }

    fn wait_drained(&mut self) -> Result<(), Error> {
        self.stopped.store(false, Ordering::Release);
        // Commands that the vCPUs left behind.
        self.turn(0)?;
        while !self.stopped.load(Ordering::Acquire) {
            let mut all = true;
            self.ask_all(|subscriber, ops| all &= subscriber.drained(ops));
            if all {
                break;
            }
            self.turn(-1)?;
        }
        Ok(())
    }

    fn ask_all(&mut self, mut ask: impl FnMut(&mut dyn Subscriber, &mut EventOps<'_>)) {
        for (id, subscriber) in &self.subscribers {
            if let Ok(mut ops) = self.manager.event_ops(*id) {
                let mut subscriber = subscriber.lock().unwrap_or_else(PoisonError::into_inner);
                ask(&mut *subscriber, &mut ops);
            }
        }
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

#[cfg(test)]
#[path = "event_loop_test.rs"]
mod tests;
