//! Block device (virtio 1.3, section 5.2): a disk of the guest's, in a file or a block device of the
//! host's.
//!
//! ```text
//! queue ──▶ request (checked) ──▶ task (one call or more) ──▶ engine ──▶ io_uring, or the call itself
//!   ▲                                                            │
//!   └──────────────── status ◀──────── completion ◀──────────────┘
//! ```

mod cache;
mod calls;
mod engine;
mod gather;
mod image;
mod layout;
mod ordered;
mod pieces;
mod request;
mod ring;
mod task;
mod under_way;

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use tracing::warn;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

pub use cache::Cache;
pub use engine::Contents;
pub use image::{Image, QCOW2_MAGIC};
pub use ordered::Ordered;

use self::engine::Engine;
use self::gather::Gather;
use self::layout::{FLUSH, QUEUE_SIZE, SECTOR, WRITABLE};
use self::pieces::Pieces;
use self::request::{Limits, Parts, Range, Request, Status};
use self::task::{Next, Task};
use self::under_way::{Origin, UnderWay};
use crate::Memory;
use crate::config_space::ConfigSpace;
use crate::device::{Activation, DeviceError, DeviceKind, Token, Traits, VirtioDevice, Watch};
use crate::log_limit::LogLimit;
use crate::queue::buffers::Slice;
use crate::queue::turn::{Served, Turn, take_turn};
use crate::queue::{Chain, VirtQueue};

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "blk",
    id: VIRTIO_ID_BLOCK as u16,
    system_calls: &[
        libc::SYS_fallocate,
        libc::SYS_fdatasync,
        libc::SYS_fsync,
        libc::SYS_ftruncate,
        libc::SYS_io_uring_enter,
        libc::SYS_lseek,
        libc::SYS_pread64,
        libc::SYS_preadv,
        libc::SYS_pwrite64,
        libc::SYS_pwritev,
        libc::SYS_pwritev2,
        libc::SYS_sched_yield,
    ],
    requests: &[],
};

/// Most queues of a disk.
pub const MAX_QUEUES: u16 = 8;

/// The longest serial number in bytes (VIRTIO_BLK_ID_BYTES; section 5.2.6).
pub const MAX_SERIAL: usize = 20;

/// Most requests of all queues that are worked on at once; others stay in their queues.
const MAX_UNDER_WAY: u16 = QUEUE_SIZE;

/// That of the engine: calls have come back.
const COMPLETIONS: Token = Token(0);

/// What a disk is to be.
#[derive(Debug)]
pub struct Config {
    /// For messages.
    pub name: String,
    /// What the guest finds in /sys/block/vdX/serial: at most [`MAX_SERIAL`] bytes count.
    pub serial: String,
    /// The contents; opened as `cache` and `read_only` say.
    pub contents: Contents,
    /// They were found to be raw by what they begin with. The guest may not write there what other
    /// images begin with, or it would be another one the next time.
    pub found_raw: bool,
    /// Its size in bytes. What is left over after the last whole block is not seen.
    pub size: u64,
    /// Its blocks.
    pub blocks: Blocks,
    /// What becomes of writes.
    pub cache: Cache,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Number of queues, from 1 to [`MAX_QUEUES`].
    pub queues: u16,
}

/// The sizes of blocks in bytes, powers of two from 512 on.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// What is read and written is a multiple of it.
    pub logical: u32,
    /// Less than this is read, changed and written back.
    pub physical: u32,
}

/// The device.
pub(super) struct Blk {
    name: String,
    serial: [u8; MAX_SERIAL],
    cache: Cache,
    limits: Limits,
    features: u64,
    queues: u16,
    found_raw: bool,
    config: Arc<ConfigSpace>,
    // Before the tasks: dropping it waits for their calls.
    engine: Engine,
    under_way: UnderWay,
    gather: Gather,
    /// Whether the driver knows that it has to flush.
    flushes: bool,
    /// Queues with chains for which there was no room.
    waiting: Vec<usize>,
    limit: LogLimit,
}

/// What is to be done for a request.
enum Work {
    Task(Task),
    /// Nothing more: so many bytes were written for the driver.
    Done(u32),
}

/// A disk.
///
/// # Errors
/// When no eventfd can be made.
pub(super) fn new(config: Config) -> io::Result<Box<dyn VirtioDevice>> {
    Ok(Box::new(Blk::new(config)?))
}

impl Blk {
    fn new(config: Config) -> io::Result<Self> {
        let block = u64::from(config.blocks.logical).max(SECTOR);
        let size = config.size / block * block;
        let space = layout::config_space(&config, size / SECTOR);
        let mut serial = [0; MAX_SERIAL];
        for (to, from) in serial.iter_mut().zip(config.serial.bytes()) {
            *to = from;
        }
        let features = layout::features(&config);
        Ok(Self {
            name: config.name,
            serial,
            cache: config.cache,
            limits: Limits {
                size,
                read_only: config.read_only,
            },
            features,
            queues: config.queues,
            config: Arc::new(ConfigSpace::with_writable(space, WRITABLE)?),
            found_raw: config.found_raw,
            engine: Engine::new(config.contents, config.cache == Cache::None, MAX_UNDER_WAY),
            under_way: UnderWay::new(MAX_UNDER_WAY),
            gather: Gather::default(),
            flushes: false,
            waiting: Vec::new(),
            limit: LogLimit::default(),
        })
    }

    /// Takes what is available in a queue, and has the kernel work on all of it at once.
    fn serve(&mut self, index: usize, queues: &mut [VirtQueue]) -> Result<(), DeviceError> {
        let Some(queue) = queues.get_mut(index) else {
            return Ok(());
        };
        let memory = Arc::clone(queue.memory());
        let stable = self.writes_are_stable();
        let mut taken = 0;
        let turn = take_turn(queue, |chain| {
            if taken == 0 {
                self.gather.begin();
            }
            taken += 1;
            self.take(chain, index, &memory, stable)
        })?;
        self.gather.end(taken);
        if turn == Turn::Waiting && !self.waiting.contains(&index) {
            self.waiting.push(index);
        }
        self.complete(queues)
    }

    /// Begins to work on a request, or answers it.
    fn take(
        &mut self,
        chain: Chain,
        queue: usize,
        memory: &Arc<Memory>,
        stable: bool,
    ) -> Result<Served, DeviceError> {
        let head = chain.head_index();
        let Some(mut parts) = Parts::of(chain, memory)? else {
            return Ok(Served::Used(0));
        };
        let at = parts.status;
        let work = parts
            .request(memory, self.limits)
            .and_then(|request| self.work(&request, &parts, memory, stable));
        let answer = |status, written| Ok(Served::Used(answer(memory, at, status, written)));
        match work {
            Err(status) => answer(status, 0),
            Ok(Work::Done(written)) => answer(Status::Ok, written),
            Ok(Work::Task(task)) => {
                let written = task.reads();
                let origin = Origin {
                    queue,
                    head,
                    status: at,
                    written,
                };
                let Some((number, task)) = self.under_way.add(origin, task) else {
                    return Ok(Served::Refused);
                };
                self.engine.start(number, task);
                Ok(Served::Taken)
            }
        }
    }

    fn work(
        &self,
        request: &Request,
        parts: &Parts,
        memory: &Arc<Memory>,
        stable: bool,
    ) -> Result<Work, Status> {
        let range = |offset, slices: &[Slice<'_>]| Range {
            offset,
            length: slices.iter().map(|slice| slice.len() as u64).sum(),
        };
        Ok(Work::Task(match *request {
            Request::Read(offset) => {
                let slices = parts.data(request, memory)?;
                Task::read(range(offset, &slices), Pieces::new(&slices, memory))
            }
            Request::Write(offset) => {
                let slices = parts.data(request, memory)?;
                let pieces = self.written(offset, &slices, memory)?;
                Task::write(range(offset, &slices), pieces, stable)
            }
            Request::Flush if self.cache == Cache::Unsafe => return Ok(Work::Done(0)),
            Request::Flush => Task::flush(),
            Request::Discard(range) => Task::discard(range, stable),
            Request::Zero { range, unmap } => Task::zero(range, unmap, stable),
            Request::GetId => {
                self.write_id(&parts.data(request, memory)?)?;
                return Ok(Work::Done(MAX_SERIAL as u32));
            }
        }))
    }

    /// What a write writes, unless it would make another image of this one.
    fn written(
        &self,
        offset: u64,
        slices: &[Slice<'_>],
        memory: &Arc<Memory>,
    ) -> Result<Pieces, Status> {
        if offset > 0 || !self.found_raw {
            return Ok(Pieces::new(slices, memory));
        }
        let pieces = Pieces::with_own_start(slices, memory);
        if pieces.start().starts_with(&QCOW2_MAGIC) {
            let refused = "a raw image may not begin as a qcow2 image does";
            self.complain(Some(io::Error::other(refused)));
            return Err(Status::IoError);
        }
        Ok(pieces)
    }

    fn write_id(&self, slices: &[Slice<'_>]) -> Result<(), Status> {
        let mut serial = &self.serial[..];
        for slice in slices {
            let written = slice.write(serial, 0).map_err(|_| Status::IoError)?;
            serial = serial.get(written..).unwrap_or_default();
        }
        if serial.is_empty() {
            Ok(())
        } else {
            Err(Status::IoError)
        }
    }

    /// Submits what was started, and returns what has come back to the driver.
    fn complete(&mut self, queues: &mut [VirtQueue]) -> Result<(), DeviceError> {
        let mut answered = 0u32;
        loop {
            self.engine
                .submit()
                .map_err(|source| self.host("io_uring", source))?;
            let mut again = false;
            while let Some((number, result)) = self.engine.completed() {
                match self.under_way.returned(number, result) {
                    Some(Next::Call) => {
                        if let Some(task) = self.under_way.task(number) {
                            self.engine.start(number, task);
                        }
                        again = true;
                    }
                    Some(Next::Done(status, error)) => {
                        self.complain(error);
                        if let Some(origin) = self.under_way.remove(number)
                            && let Some(queue) = queues.get_mut(origin.queue)
                        {
                            origin.answer(queue, status)?;
                            answered |= 1 << origin.queue;
                        }
                    }
                    None => {}
                }
            }
            if !again {
                break;
            }
        }
        self.signal(answered, queues)
    }

    /// Tells the driver of what was answered in these queues; those that waited for room go on.
    fn signal(&mut self, answered: u32, queues: &mut [VirtQueue]) -> Result<(), DeviceError> {
        if answered == 0 {
            return Ok(());
        }
        for (index, queue) in queues.iter_mut().enumerate() {
            if answered & 1 << index != 0 {
                queue.signal()?;
            }
        }
        for index in self.waiting.drain(..) {
            if let Some(queue) = queues.get(index) {
                queue.reschedule();
            }
        }
        Ok(())
    }

    /// Section 5.2.6.2: a driver that does not flush, or has chosen so, wants each write to be safe.
    fn writes_are_stable(&self) -> bool {
        let mut writeback = [0];
        self.config.read(WRITABLE.start, &mut writeback);
        self.cache != Cache::Unsafe && (writeback == [0] || !self.flushes)
    }

    fn complain(&self, error: Option<io::Error>) {
        if let Some(error) = error
            && self.limit.allows()
        {
            warn!("disk {}: {error}", self.name);
        }
    }

    fn host(&self, what: &str, source: io::Error) -> DeviceError {
        DeviceError::Host {
            what: format!("disk {}: {what}", self.name),
            source,
        }
    }
}

/// Writes the status. Returns how many bytes the driver finds written, with `written` before it.
fn answer(memory: &Memory, at: GuestAddress, status: Status, written: u32) -> u32 {
    let stored = memory.write_obj(status as u8, at);
    // Without a place for the status there is nobody to tell.
    stored.map_or(0, |()| written.saturating_add(1))
}

impl VirtioDevice for Blk {
    fn traits(&self) -> Traits {
        Traits {
            kind: &KIND,
            features: self.features,
            queue_sizes: vec![QUEUE_SIZE; self.queues.into()],
            config: Arc::clone(&self.config),
            own_loop: true,
        }
    }

    fn start(
        &mut self,
        activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.flushes = activation.features & FLUSH != 0;
        let descriptor: Option<RawFd> = self.engine.descriptor();
        descriptor.map_or(Ok(()), |fd| {
            watch
                .watch(fd, COMPLETIONS, EventSet::IN)
                .map_err(|source| self.host("watch io_uring", source))
        })
    }

    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        _watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.serve(index, queues)
    }

    fn ready(
        &mut self,
        _token: Token,
        _events: EventSet,
        queues: &mut [VirtQueue],
        _watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.complete(queues)
    }

    /// What the guest wrote last may not have been asked for yet: it counts as well.
    fn drained(&mut self, queues: &mut [VirtQueue], _watch: &mut dyn Watch) -> bool {
        while !self.under_way.is_empty() {
            let done = self.engine.wait().is_ok() && self.complete(queues).is_ok();
            if !done {
                break;
            }
        }
        self.complain(self.engine.finish().err());
        true
    }

    /// Section 2.4: after a reset the device touches no queue, and no memory of theirs.
    fn stop(&mut self) {
        while !self.under_way.is_empty() && self.engine.wait().is_ok() {
            while let Some((number, _)) = self.engine.completed() {
                self.under_way.remove(number);
            }
        }
        self.complain(self.engine.finish().err());
        self.waiting.clear();
        let initial = layout::writeback(self.cache);
        self.config.write(WRITABLE.start, &[initial]);
    }
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod guest_test;
#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile_test;
#[cfg(test)]
#[path = "blk_test.rs"]
mod tests;
