//! The requests of a driver, from DRIVER_OK to the reset, as the threads of a share see them.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::under_way::UnderWay;
use crate::device::DeviceError;
use crate::queue::{Chain, VirtQueue};

/// The event of [`Requests::end`]; others are indices of queues.
const END: u64 = u64::MAX;

/// The driver hears of answers that it does not need soon with the next one, or after so many milliseconds, or when there are so
/// many.
const LAZINESS: i32 = 10;
const MAX_SILENT: u32 = 32;

pub(super) struct Requests {
    queues: Vec<Mutex<Ring>>,
    events: Epoll,
    /// The driver has answers that it does not know of.
    silent: AtomicBool,
    /// Readable from the end on.
    end: EventFd,
    over: AtomicBool,
    under_way: UnderWay,
}

struct Ring {
    queue: VirtQueue,
    /// So many answers that the driver may not know of.
    silent: u32,
}

impl Ring {
    fn signal(&mut self) -> Result<(), DeviceError> {
        self.silent = 0;
        Ok(self.queue.signal()?)
    }
}

/// A request and where its answer goes.
pub(super) struct Request {
    pub(super) chain: Chain,
    pub(super) place: Place,
}

/// Where a request came from: its queue, and its number among all.
pub(super) struct Place {
    queue: usize,
    number: u64,
}

impl Requests {
    pub(super) fn new(queues: Vec<VirtQueue>) -> io::Result<Self> {
        let events = Epoll::new()?;
        let end = EventFd::new(EFD_NONBLOCK)?;
        let watch = |event: &EventFd, interest, data| {
            let interest = EpollEvent::new(interest, data);
            events.ctl(ControlOperation::Add, event.as_raw_fd(), interest)
        };
        // All threads hear of the end.
        watch(&end, EventSet::IN, END)?;
        for (index, queue) in (0..).zip(&queues) {
            // A kick wakes one of them, which need not read it.
            watch(queue.kick(), EventSet::IN | EventSet::EDGE_TRIGGERED, index)?;
        }
        let ring = |queue| Mutex::new(Ring { queue, silent: 0 });
        Ok(Self {
            queues: queues.into_iter().map(ring).collect(),
            events,
            silent: AtomicBool::new(false),
            end,
            over: AtomicBool::new(false),
            under_way: UnderWay::default(),
        })
    }

    /// No request comes any more. Any thread.
    pub(super) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        // A full counter is readable as well.
        let _ = self.end.write(1);
    }

    /// Whether that was said.
    pub(super) fn are_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The next request; when there is none, a kick will tell of the next one. Any thread.
    pub(super) fn take(&self) -> Result<Option<Request>, DeviceError> {
        for queue in 0..self.queues.len() {
            let ring = &mut self.ring(queue).queue;
            loop {
                if let Some(chain) = ring.pop()? {
                    // While no other thread can take the next one.
                    let number = self.under_way.begin();
                    let place = Place { queue, number };
                    return Ok(Some(Request { chain, place }));
                }
                if !ring.enable_notifications()? {
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Has another thread, one that waits, see to the requests behind one that was taken.
    pub(super) fn hand_over(&self, taken: &Place) -> Result<(), DeviceError> {
        let ring = &mut self.ring(taken.queue).queue;
        if ring.enable_notifications()? {
            ring.reschedule();
        }
        Ok(())
    }

    /// Waits until all requests that were taken before this one are answered.
    pub(super) fn wait_for_earlier(&self, place: &Place) {
        self.under_way.wait_for_earlier(place.number);
    }

    /// Returns a request to the driver, with an answer of that length, or leaves it for good. Any thread.
    pub(super) fn end(
        &self,
        place: &Place,
        head: u16,
        length: Result<u32, DeviceError>,
    ) -> Result<(), DeviceError> {
        self.end_and(place, head, length, Ring::signal)
    }

    /// The same, but the driver need not hear of it soon. The thread waits for the next request then, or takes it; else it
    /// calls [`Self::signal_all`].
    pub(super) fn end_silently(
        &self,
        place: &Place,
        head: u16,
        length: Result<u32, DeviceError>,
    ) -> Result<(), DeviceError> {
        self.end_and(place, head, length, |ring| {
            ring.silent += 1;
            if ring.silent >= MAX_SILENT {
                return ring.signal();
            }
            self.silent.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    fn end_and(
        &self,
        place: &Place,
        head: u16,
        length: Result<u32, DeviceError>,
        tell: impl FnOnce(&mut Ring) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let ended = length.and_then(|length| {
            let mut ring = self.ring(place.queue);
            ring.queue.push(head, length)?;
            tell(&mut ring)
        });
        self.under_way.end(place.number);
        ended
    }

    /// Waits for a kick, or the end. Returns whether either came within `milliseconds` (-1: without end).
    pub(super) fn wait(&self, milliseconds: i32) -> Result<bool, DeviceError> {
        if self.silent.swap(false, Ordering::Relaxed) {
            if self.wait_for_event(LAZINESS)? {
                self.silent.store(true, Ordering::Relaxed);
            } else {
                self.signal_all()?;
            }
            return Ok(true);
        }
        self.wait_for_event(milliseconds)
    }

    /// Lets the driver hear of all answers now.
    pub(super) fn signal_all(&self) -> Result<(), DeviceError> {
        (0..self.queues.len()).try_for_each(|queue| self.ring(queue).signal())
    }

    fn wait_for_event(&self, milliseconds: i32) -> Result<bool, DeviceError> {
        let mut event = [EpollEvent::default()];
        match self.events.wait(milliseconds, &mut event) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(source) => Err(DeviceError::Host {
                what: "wait for file system requests".to_owned(),
                source,
            }),
        }
    }

    /// `index` is one of those that there are.
    fn ring(&self, index: usize) -> MutexGuard<'_, Ring> {
        // A panic elsewhere cannot leave the ring in a state that the driver could not.
        self.queues[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
