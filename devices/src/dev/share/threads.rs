//! The threads of a share.
//!
//! One thread leads: it waits for requests and answers them itself, which is the fastest way for
//! the many that take microseconds. Before a request that may take as long as a disk does, it lets
//! another thread lead, so that a guest process that waits for its fsync delays no other. Threads
//! are added when that happens, and end when the driver resets the device. A request that is to come
//! after all others waits for those on such a thread, too.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Scope};

use tracing::warn;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::confinement::{own_directories, restrict_calls};
use super::requests::{Request, Requests};
use super::under_way::UnderWay;
use super::{Protocol, Turn};
use crate::device::DeviceError;
use crate::queue::VirtQueue;

/// Per share; as many slow requests are served at once without delaying others, less one.
const MAX_THREADS: usize = 4;
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
    /// Who has it waits for the next request.
    lead: Mutex<()>,
    /// Threads that there are, and those of them that wait for the lead or have it.
    threads: AtomicUsize,
    idle: AtomicUsize,
    /// Requests of those that neither wait for the lead nor have it.
    under_way: UnderWay,
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
        lead: Mutex::new(()),
        threads: AtomicUsize::new(1),
        idle: AtomicUsize::new(1),
        under_way: UnderWay::default(),
    };
    thread::scope(|scope| team.work(scope));
}

impl Team<'_> {
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if let Err(error) = self.lead(scope) {
            warn!("share {}: {error}", self.name);
            self.requests.finish();
            // A full counter is readable as well.
            let _ = self.failed.write(1);
        }
    }

    fn lead<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Result<(), DeviceError> {
        loop {
            let lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(request) = self.requests.next()? else {
                return Ok(());
            };
            let turn = self.protocol.turn(&request.chain);
            let number = (turn != Turn::Quick).then(|| self.under_way.begin());
            if number.is_some() && self.let_other_lead(scope) {
                drop(lead);
                let answered = self.answer_in_turn(request, turn, number);
                self.idle.fetch_add(1, Ordering::Relaxed);
                answered?;
            } else {
                self.answer_in_turn(request, turn, number)?;
            }
        }
    }

    /// `number` is that of a request that is not quick.
    fn answer_in_turn(
        &self,
        request: Request,
        turn: Turn,
        number: Option<u64>,
    ) -> Result<(), DeviceError> {
        let Some(number) = number else {
            return self.answer(request);
        };
        if turn == Turn::Last {
            // Quick ones are answered before another is looked at.
            self.under_way.wait_for_earlier(number);
        }
        let answered = self.answer(request);
        self.under_way.end(number);
        answered
    }

    fn answer(&self, request: Request) -> Result<(), DeviceError> {
        let (queue, head) = (request.queue(), request.chain.head_index());
        let length = self.protocol.handle(request.chain)?;
        self.requests.answer(queue, head, length)
    }

    /// Makes sure that another thread waits for the lead. Called by the one that has it.
    fn let_other_lead<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> bool {
        // Threads become idle at any time, but only the leader becomes busy.
        if self.idle.fetch_sub(1, Ordering::Relaxed) > 1 {
            return true;
        }
        let may = self.threads.load(Ordering::Relaxed) < MAX_THREADS;
        if may && self.add_thread(scope).is_ok() {
            return true;
        }
        self.idle.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn add_thread<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> io::Result<()> {
        self.threads.fetch_add(1, Ordering::Relaxed);
        self.idle.fetch_add(1, Ordering::Relaxed);
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK);
        let added = thread.spawn_scoped(scope, move || {
            // Its confinement is that of the thread that added it.
            match own_directories() {
                Ok(()) => self.work(scope),
                Err(error) => warn!("share {}: a thread cannot start: {error}", self.name),
            }
        });
        if let Err(error) = added {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            self.idle.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        Ok(())
    }
}
