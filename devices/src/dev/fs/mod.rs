//! File system device (virtio 1.3, section 5.11): a directory of the host, served by the virtiofsd
//! library in this process, on threads of its own.
//!
//! Guest memory stays private to this process that way, which is what lets it be huge pages.

mod checked;
mod confinement;
#[cfg(test)]
mod fs_test;
#[cfg(test)]
mod guest_test;
#[cfg(test)]
mod hostile_test;
mod locks;
mod passthrough;
mod requests;
mod sink;
mod threads;
#[cfg(test)]
mod threads_test;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use vmm_sys_util::epoll::EventSet;

use crate::config_space::ConfigSpace;
use crate::device::{Activation, DeviceError, DeviceKind, Token, Traits, VirtioDevice, Watch};
use crate::queue::VirtQueue;

use threads::Threads;

pub use confinement::CAPABILITIES;
pub use passthrough::raise_open_files_limit;

/// The device's kind. The threads of a share have a list of their own; the event loop's makes the
/// queues' events for them.
pub const KIND: DeviceKind = DeviceKind {
    name: "fs",
    id: VIRTIO_ID_FS as u16,
    system_calls: &[
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_eventfd2,
    ],
    requests: &[],
};

/// Section 5.11.4: the tag's field, not NUL-terminated if it is full.
const MAX_TAG: usize = 36;

/// What is shared, and by which name.
#[derive(Clone, Debug)]
pub struct Config {
    /// By which the guest mounts it; 1 to 36 bytes.
    pub tag: String,
    /// The directory. Mounts below it are visible too.
    pub directory: PathBuf,
    /// Whether the guest can change nothing.
    pub read_only: bool,
}

/// Forgets and interrupts; Linux sends them in batches.
const HIPRIO_SIZE: u16 = 128;
/// Linux limits a request to as many pages as the queue has descriptors, less four: this allows the
/// library's 1 MiB.
const REQUEST_SIZE: u16 = 512;
/// One request queue: its requests are handed to as many threads as they need.
const REQUEST_QUEUES: u32 = 1;

/// The threads gave up on the driver.
const FAILED_TOKEN: Token = Token(0);

/// The device.
pub struct Fs {
    config: Arc<ConfigSpace>,
    tag: String,
    threads: Threads,
}

impl Fs {
    /// A device that shares what `config` says, with its first thread, which inherits the
    /// privileges and filters of the caller's, keeps those privileges that it needs, and can reach
    /// nothing but the directory. It needs CAP_SYS_CHROOT for that.
    ///
    /// # Errors
    /// When the tag does not fit, the directory cannot be shared, or no thread can be started.
    pub fn new(config: Config) -> io::Result<Self> {
        let Config { tag, .. } = &config;
        if tag.is_empty() || tag.len() > MAX_TAG || tag.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("virtio-fs tag {tag:?} has to have 1 to {MAX_TAG} bytes without NUL"),
            ));
        }
        // `struct virtio_fs_config`: tag, num_request_queues.
        let mut space = tag.clone().into_bytes();
        space.resize(MAX_TAG, 0);
        space.extend(REQUEST_QUEUES.to_le_bytes());
        Ok(Self {
            config: Arc::new(ConfigSpace::new(space)?),
            tag: tag.clone(),
            threads: Threads::start(config)?,
        })
    }
}

impl VirtioDevice for Fs {
    fn traits(&self) -> Traits {
        Traits {
            kind: &KIND,
            features: 0,
            queue_sizes: vec![HIPRIO_SIZE, REQUEST_SIZE],
            config: Arc::clone(&self.config),
            own_loop: false,
        }
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

impl Fs {
    fn host(&self, attempt: &str, source: io::Error) -> DeviceError {
        DeviceError::Host {
            what: format!("{attempt} the threads of share {:?}", self.tag),
            source,
        }
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}
