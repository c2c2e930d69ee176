//! The threads of a share.
//!
//! All of them do the same: take a request, answer it, and wait for a kick when there is none. The one that waited last is
//! woken first, so that a guest that makes one request at a time is served by one thread with a warm cache. Whoever takes a request sees
//! to it that another thread waits for the next one, and starts it if there is none: a file that takes
//! long delays no other, nor does a file system that never answers. Threads that have nothing to do for a while end, but for two.
//!
//! What the driver does not wait for, as that a file is closed, comes after the next request, and without an interrupt of its own.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle, Scope};

use tracing::warn;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::confinement::{own_directories, restrict_calls};
use super::requests::{Request, Requests};
use super::{Pace, Protocol};
use crate::device::DeviceError;
use crate::queue::VirtQueue;

/// Per share. So many requests that take long are worked on at once; with one more, others wait.
pub(super) const MAX_THREADS: usize = 128;
/// So many stay when there is nothing to do.
const KEPT_THREADS: usize = 2;
/// A thread puts so many requests aside that the driver does not wait for.
const MAX_LAZY: usize = 32;
/// How long others wait for work, in milliseconds.
const PATIENCE: i32 = 5000;
/// The library keeps its buffers on the heap: a debug build gets by with a fifth of this.
const STACK: usize = 256 << 10;

/// The threads of a share, from the outside. Lives with the device.
pub(super) struct Threads {
    drivers: Option<SyncSender<Arc<Requests>>>,
    current: Option<Arc<Requests>>,
    /// Says that nobody serves the current ones any more.
    over: Receiver<()>,
    failed: Arc<EventFd>,
    first: Option<JoinHandle<()>>,
}

/// What the threads that serve one driver share.
struct Team<'a> {
    protocol: &'a dyn Protocol,
    requests: &'a Requests,
    failed: &'a EventFd,
    name: &'a str,
    /// Threads that there are, and those of them that look for requests, or wait.
    threads: AtomicUsize,
    idle: AtomicUsize,
}

/// Whether a thread may end before the requests do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    First,
    Added,
}

impl Threads {
    /// Starts the first thread, which `open`s the directory. The kernel shows the first 15 bytes of `name`.
    pub(super) fn start<P: Protocol>(
        name: String,
        open: impl FnOnce() -> io::Result<P> + Send + 'static,
    ) -> io::Result<Self> {
        let (drivers, next_requests) = sync_channel::<Arc<Requests>>(1);
        let (driver_gone, over) = sync_channel(1);
        let (result, shared) = sync_channel(1);
        let failed = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let failure = Arc::clone(&failed);
        let thread = thread::Builder::new().name(name.clone()).stack_size(STACK);
        let first = thread.spawn(move || {
            let shared = open().and_then(|protocol| {
                restrict_calls()?;
                Ok(protocol)
            });
            let protocol = match shared {
                Ok(protocol) => protocol,
                Err(error) => return drop(result.send(Err(error))),
            };
            let _ = result.send(Ok(()));
            while let Ok(requests) = next_requests.recv() {
                serve_by(&protocol, &requests, &failure, &name);
                protocol.forget();
                drop(requests);
                let _ = driver_gone.send(());
            }
        })?;
        let threads = Self {
            drivers: Some(drivers),
            current: None,
            over,
            failed,
            first: Some(first),
        };
        let gone = |_| io::Error::other("the thread of the share is gone");
        shared.recv().map_err(gone)??;
        Ok(threads)
    }

    /// Starts to serve `queues`. Returns the descriptor that becomes readable if that fails.
    pub(super) fn serve(&mut self, queues: Vec<VirtQueue>) -> io::Result<RawFd> {
        let requests = Arc::new(Requests::new(queues)?);
        let sent = self.drivers.as_ref().map(|s| s.send(Arc::clone(&requests)));
        if !matches!(sent, Some(Ok(()))) {
            return Err(io::Error::other("the thread of the share is gone"));
        }
        self.current = Some(requests);
        Ok(self.failed.as_raw_fd())
    }

    /// Ends them; when it returns no thread uses the queues any more.
    pub(super) fn stop(&mut self) {
        if let Some(requests) = self.current.take() {
            requests.finish();
            // It fails if the thread is gone, which uses nothing either.
            let _ = self.over.recv();
            // Of those that are over; fails if there was no failure.
            let _ = self.failed.read();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
        self.drivers = None;
        if let Some(first) = self.first.take() {
            // A panic was reported when it happened.
            let _ = first.join();
        }
    }
}

/// Serves `requests` until their end, on this thread and those that it adds.
pub(super) fn serve_by(protocol: &dyn Protocol, requests: &Requests, failed: &EventFd, name: &str) {
    let team = Team {
        protocol,
        requests,
        failed,
        name,
        threads: AtomicUsize::new(1),
        idle: AtomicUsize::new(1),
    };
    thread::scope(|scope| team.work(scope, Role::First));
}

impl Team<'_> {
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, role: Role) {
        if let Err(error) = self.serve(scope, role) {
            warn!("share {}: {error}", self.name);
            self.requests.finish();
            // A full counter is readable as well.
            let _ = self.failed.write(1);
        }
        if self.requests.are_over() {
            self.protocol.end();
        }
    }

    fn serve<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        role: Role,
    ) -> Result<(), DeviceError> {
        let mut lazy = Vec::new();
        while !self.requests.are_over() {
            match self.requests.take()? {
                Some(request) => match self.protocol.pace(&request.chain) {
                    Pace::Lazy if lazy.len() < MAX_LAZY => lazy.push(request),
                    pace => {
                        self.hand_over(&request, scope)?;
                        if pace == Pace::Unbounded && !lazy.is_empty() {
                            self.answer_silently(&mut lazy)?;
                            // All others may be asleep already.
                            self.requests.signal_all()?;
                        }
                        self.answer(request, &mut lazy)?;
                    }
                },
                None => {
                    if let Some(request) = lazy.pop() {
                        self.hand_over(&request, scope)?;
                        lazy.push(request);
                        self.answer_silently(&mut lazy)?;
                        self.idle.fetch_add(1, Ordering::Relaxed);
                    } else if !self.requests.wait(self.patience(role))? && self.may_leave() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Has another thread see to what comes while this one works on the request.
    fn hand_over<'scope>(
        &'scope self,
        request: &Request,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<(), DeviceError> {
        if self.another_waits(scope) {
            self.requests.hand_over(&request.place)?;
        }
        Ok(())
    }

    /// Answers a request, and then those before it that the driver does not wait for.
    fn answer(&self, request: Request, lazy: &mut Vec<Request>) -> Result<(), DeviceError> {
        let (place, head) = (request.place, request.chain.head_index());
        if self.protocol.waits_for_earlier(&request.chain) {
            // They may be among them.
            self.answer_silently(lazy)?;
            self.requests.wait_for_earlier(&place);
        }
        let length = self.protocol.handle(request.chain);
        if lazy.is_empty() {
            // Before the driver may make the next request, for which this thread is as good as one that waits.
            self.idle.fetch_add(1, Ordering::Relaxed);
            return self.requests.end(&place, head, length);
        }
        self.requests.end(&place, head, length)?;
        self.answer_silently(lazy)?;
        self.idle.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn answer_silently(&self, lazy: &mut Vec<Request>) -> Result<(), DeviceError> {
        for request in lazy.drain(..) {
            let head = request.chain.head_index();
            let length = self.protocol.handle(request.chain);
            self.requests.end_silently(&request.place, head, length)?;
        }
        Ok(())
    }

    /// Has this thread be none that waits; whether there is one all the same.
    fn another_waits<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> bool {
        if self.idle.fetch_sub(1, Ordering::Relaxed) > 1 {
            return true;
        }
        let add = |threads| (threads < MAX_THREADS).then_some(threads + 1);
        let may = self
            .threads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        may.is_ok() && self.add_thread(scope).is_ok()
    }

    /// Starts a thread that was counted.
    fn add_thread<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> io::Result<()> {
        self.idle.fetch_add(1, Ordering::Relaxed);
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK);
        let added = thread.spawn_scoped(scope, move || {
            // Its confinement is that of the thread that added it.
            match own_directories() {
                Ok(()) => self.work(scope, Role::Added),
                Err(error) => {
                    warn!("share {}: a thread cannot start: {error}", self.name);
                    self.remove_thread();
                }
            }
        });
        if let Err(error) = added {
            self.remove_thread();
            return Err(error);
        }
        Ok(())
    }

    fn remove_thread(&self) {
        self.threads.fetch_sub(1, Ordering::Relaxed);
        self.idle.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long a thread waits before it asks whether it may leave.
    fn patience(&self, role: Role) -> i32 {
        if role == Role::Added && self.threads.load(Ordering::Relaxed) > KEPT_THREADS {
            PATIENCE
        } else {
            -1
        }
    }

    /// Whether enough others stay; this thread is not counted any more then.
    fn may_leave(&self) -> bool {
        let leave = |threads| (threads > KEPT_THREADS).then(|| threads - 1);
        let may = self
            .threads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, leave);
        if may.is_ok() {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
        may.is_ok()
    }
}
