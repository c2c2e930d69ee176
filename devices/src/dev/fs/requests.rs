//! The requests of a driver, from DRIVER_OK to the reset, as the threads of a share see them.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtiofsd::fuse::Opcode;
use vm_memory::{Address, Bytes};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::DeviceError;
use crate::queue::{Chain, VirtQueue};

/// The event of [`Requests::end`]; others are indices of queues.
const END: u64 = u64::MAX;

pub(super) struct Requests {
    queues: Vec<Mutex<VirtQueue>>,
    events: Epoll,
    /// Readable from the end on.
    end: EventFd,
    over: AtomicBool,
}

/// A request and where its answer goes.
pub(super) struct Request {
    pub(super) chain: Chain,
    queue: usize,
}

impl Requests {
    pub(super) fn new(queues: Vec<VirtQueue>) -> io::Result<Self> {
        let events = Epoll::new()?;
        let end = EventFd::new(EFD_NONBLOCK)?;
        let watch = |event: &EventFd, data| {
            let interest = EpollEvent::new(EventSet::IN, data);
            events.ctl(ControlOperation::Add, event.as_raw_fd(), interest)
        };
        watch(&end, END)?;
        for (index, queue) in (0..).zip(&queues) {
            watch(queue.kick(), index)?;
        }
        Ok(Self {
            queues: queues.into_iter().map(Mutex::new).collect(),
            events,
            end,
            over: AtomicBool::new(false),
        })
    }

    /// No request comes any more. Any thread.
    pub(super) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        // A full counter is readable as well.
        let _ = self.end.write(1);
    }

    /// The next request, which it waits for; `None` at the end. One thread at a
    /// time.
    pub(super) fn next(&self) -> Result<Option<Request>, DeviceError> {
        loop {
            if self.over.load(Ordering::Acquire) {
                return Ok(None);
            }
            // Requests that can be seen are served before waiting; while they are, no kicks come.
            for index in 0..self.queues.len() {
                let Some(mut queue) = self.queue(index) else {
                    continue;
                };
                if let Some(chain) = queue.next_chain()? {
                    return Ok(Some(Request {
                        chain,
                        queue: index,
                    }));
                }
            }
            self.wait()?;
        }
    }

    /// Returns an answered request to the driver. Any thread.
    pub(super) fn answer(&self, queue: usize, head: u16, length: u32) -> Result<(), DeviceError> {
        let Some(mut queue) = self.queue(queue) else {
            return Ok(());
        };
        queue.push(head, length)?;
        Ok(queue.signal()?)
    }

    fn wait(&self) -> Result<(), DeviceError> {
        let mut events = [EpollEvent::default(); 3];
        let count = match self.events.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(source) => {
                return Err(DeviceError::Host {
                    what: "wait for file system requests".to_owned(),
                    source,
                });
            }
        };
        for event in events.iter().take(count) {
            if let Some(queue) = usize::try_from(event.data())
                .ok()
                .and_then(|i| self.queue(i))
            {
                // Before the queue is looked at; fails only if it was read already.
                let _ = queue.kick().read();
            }
        }
        Ok(())
    }

    fn queue(&self, index: usize) -> Option<MutexGuard<'_, VirtQueue>> {
        // A panic elsewhere cannot leave the ring in a state that the driver could not.
        let queue = self.queues.get(index)?;
        Some(queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Request {
    pub(super) fn queue(&self) -> usize {
        self.queue
    }

    /// Whether it may take as long as a disk does. (What
    /// waits for a lock has a thread of its own. Named pipes and devices are opened in the guest.)
    pub(super) fn is_slow(&self) -> bool {
        const SLOW: [u32; 5] = [
            Opcode::Fsync as u32,
            Opcode::Fsyncdir as u32,
            Opcode::Syncfs as u32,
            Opcode::Fallocate as u32,
            Opcode::CopyFileRange as u32,
        ];
        // `struct fuse_in_header` starts with len and opcode.
        let header = self.chain.clone().readable().next();
        header
            .filter(|header| header.len() >= 8)
            .and_then(|header| header.addr().checked_add(4))
            .and_then(|address| self.chain.memory().read_obj::<u32>(address).ok())
            .is_some_and(|opcode| SLOW.contains(&opcode))
    }
}
