//! The device in front of the threads, whatever its protocol.

use std::fmt;
use std::io;

use vmm_sys_util::epoll::EventSet;

use super::Protocol;
use super::threads::Threads;
use crate::device::{Activation, DeviceError, DeviceKind, Token, Traits, VirtioDevice, Watch};
use crate::queue::VirtQueue;

/// What such a device asks of the kernel on the event loop's thread, which makes the queues' events for
/// the threads. Those have a list of their own.
pub(in crate::dev) const SYSTEM_CALLS: [libc::c_long; 3] = [
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_eventfd2,
];

/// The threads gave up on the driver.
pub(in crate::dev) const FAILED_TOKEN: Token = Token(0);

/// A device that shares a directory.
pub struct SharedDirectory {
    traits: Traits,
    tag: String,
    threads: Threads,
}

impl SharedDirectory {
    /// A device whose first thread `open` makes the directory's protocol on. It inherits the privileges
    /// and filters of the caller's.
    ///
    /// # Errors
    /// When the directory cannot be shared, or no thread can be started.
    pub(in crate::dev) fn new<P: Protocol>(
        traits: Traits,
        tag: String,
        open: impl FnOnce() -> io::Result<P> + Send + 'static,
    ) -> io::Result<Self> {
        let DeviceKind { name, .. } = traits.kind;
        Ok(Self {
            traits,
            threads: Threads::start(format!("{name}-{tag}"), open)?,
            tag,
        })
    }

    fn host(&self, attempt: &str, source: io::Error) -> DeviceError {
        DeviceError::Host {
            what: format!("{attempt} the threads of share {:?}", self.tag),
            source,
        }
    }
}

impl VirtioDevice for SharedDirectory {
    fn traits(&self) -> Traits {
        self.traits.clone()
    }

    fn start(
        &mut self,
        activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let queues = std::mem::take(&mut activation.queues);
        let failed = self
            .threads
            .serve(queues)
            .map_err(|source| self.host("start", source))?;
        watch
            .watch(failed, FAILED_TOKEN, EventSet::IN)
            .map_err(|source| self.host("watch", source))
    }

    fn ready(
        &mut self,
        _token: Token,
        _events: EventSet,
        _queues: &mut [VirtQueue],
        _watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        Err(DeviceError::Driver(format!(
            "share {:?}: the driver sent a request that makes no sense",
            self.tag
        )))
    }

    fn stop(&mut self) {
        self.threads.stop();
    }
}

impl fmt::Debug for SharedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedDirectory")
            .field("kind", &self.traits.kind.name)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}
