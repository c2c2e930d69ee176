//! The threads of a share.
//!
//! One thread leads: it waits for requests and answers them itself, which is the fastest way for
//! the many that take microseconds. Before a request that may take as long as a disk does, it lets
//! another thread lead, so that a guest process that waits for its fsync delays no other. Threads
//! are added when that happens, and end when the driver resets the device.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Scope};

use tracing::warn;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Config;
use super::confinement::{own_directories, restrict_calls};
use super::locks::{Answer, Wait};
use super::passthrough::Share;
use super::requests::{Request, Requests};
use crate::device::DeviceError;
use crate::queue::{Chain, VirtQueue};

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

/// What requests are for.
pub(super) trait Serve: Sync {
    /// Executes a request.
    ///
    /// # Errors
    /// When it is no request, or there is too little room for the answer.
    fn handle(&self, request: Chain) -> Result<Answer, DeviceError>;

    /// Has those return soon that wait to answer.
    fn end(&self);
}

/// What the threads that serve one driver share.
struct Team<'a> {
    server: &'a dyn Serve,
    requests: &'a Requests,
    failed: &'a EventFd,
    name: &'a str,
    /// Who has it waits for the next request.
    lead: Mutex<()>,
    /// Threads that there are, and those of them that wait for the lead or have it.
    threads: AtomicUsize,
    idle: AtomicUsize,
}

impl Threads {
    /// Starts the first thread and shares the directory.
    pub(super) fn start(config: Config) -> io::Result<Self> {
        let (drivers, next_requests) = sync_channel::<Arc<Requests>>(1);
        let (driver_gone, over) = sync_channel(1);
        let (result, shared) = sync_channel(1);
        let failed = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let failure = Arc::clone(&failed);
        // The kernel shows the first 15 bytes of a thread's name.
        let name = format!("fs-{}", config.tag);
        let thread = thread::Builder::new().name(name.clone()).stack_size(STACK);
        let first = thread.spawn(move || {
            let shared = Share::new(&config).and_then(|share| {
                restrict_calls()?;
                Ok(share)
            });
            let share = match shared {
                Ok(share) => share,
                Err(error) => return drop(result.send(Err(error))),
            };
            let _ = result.send(Ok(()));
            while let Ok(requests) = next_requests.recv() {
                serve_by(&share, &requests, &failure, &name);
                share.forget();
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

/// Serves `requests` by `server` until their end, on this thread and those that it adds.
pub(super) fn serve_by(server: &dyn Serve, requests: &Requests, failed: &EventFd, name: &str) {
    let team = Team {
        server,
        requests,
        failed,
        name,
        lead: Mutex::new(()),
        threads: AtomicUsize::new(1),
        idle: AtomicUsize::new(1),
    };
    thread::scope(|scope| {
        team.work(scope);
        server.end();
    });
}

impl Team<'_> {
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if let Err(error) = self.lead(scope) {
            self.fail(&error);
        }
    }

    fn fail(&self, error: &DeviceError) {
        warn!("share {}: {error}", self.name);
        self.requests.finish();
        // A full counter is readable as well.
        let _ = self.failed.write(1);
    }

    fn lead<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Result<(), DeviceError> {
        loop {
            let lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(request) = self.requests.next()? else {
                return Ok(());
            };
            if request.is_slow() && self.let_other_lead(scope) {
                drop(lead);
                let answered = self.answer(request, scope);
                self.idle.fetch_add(1, Ordering::Relaxed);
                answered?;
            } else {
                self.answer(request, scope)?;
            }
        }
    }

    fn answer<'scope>(
        &'scope self,
        request: Request,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<(), DeviceError> {
        let (queue, head) = (request.queue(), request.chain.head_index());
        let length = match self.server.handle(request.chain)? {
            Answer::Length(length) => length,
            Answer::Later(wait) => {
                let refused = match self.add_waiter(scope, queue, head) {
                    Ok(waiter) => waiter.send(wait).err().map(|SendError(wait)| wait),
                    Err(_) => Some(wait),
                };
                match refused {
                    None => return Ok(()),
                    Some(wait) => wait.refuse()?,
                }
            }
        };
        self.requests.answer(queue, head, length)
    }

    /// Starts a thread that answers a request when it has waited long enough. The request is given to
    /// it when there is one.
    fn add_waiter<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        queue: usize,
        head: u16,
    ) -> io::Result<SyncSender<Wait>> {
        let (give, given) = sync_channel::<Wait>(1);
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK);
        thread.spawn_scoped(scope, move || {
            let Ok(wait) = given.recv() else { return };
            let answered = wait
                .run()
                .and_then(|length| self.requests.answer(queue, head, length));
            if let Err(error) = answered {
                self.fail(&error);
            }
        })?;
        Ok(give)
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
