//! 9P device (virtio 1.3 has its id in section 5 and no more; linux/virtio_9p.h has the rest): a directory of
//! the host by 9P2000.L, for guests that have no virtio-fs, or want other caches.
//!
//! It serves the same files as virtio-fs does, by the same library, with the same threads and privileges
//! (`dev/share/`): here is only the protocol. The messages are those of diod's protocol.md, as Linux 6.1
//! to 6.12 send them (`net/9p/client.c`, `fs/9p/`).

mod attributes;
mod data;
mod fid;
#[cfg(test)]
mod guest_test;
#[cfg(test)]
mod hostile_test;
mod names;
#[cfg(test)]
mod p9_test;
mod server;
mod session;
mod wire;
mod xattr;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_9P;

use super::share::{self, SYSTEM_CALLS, SharedDirectory};
use crate::config_space::ConfigSpace;
use crate::device::{DeviceKind, Traits};

use server::P9;

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "9p",
    id: VIRTIO_ID_9P as u16,
    system_calls: &SYSTEM_CALLS,
    requests: &[],
};

/// The only feature: the configuration space has the tag (linux/virtio_9p.h).
const VIRTIO_9P_MOUNT_TAG: u64 = 1 << 0;

/// As many descriptors as Linux uses for one request (`VIRTQUEUE_NUM`), which limits its messages to
/// 125 pages.
const QUEUE_SIZE: u16 = 128;

/// The longest tag. The field for its length would take more; Linux shows it in a file of sysfs.
const MAX_TAG: usize = 255;

/// What is shared, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory.
    pub share: share::Config,
    /// What is written to a file that was opened with O_APPEND goes to its end, wherever the guest
    /// believes that to be. Not for guests with a cache for writes, which write its pages to their places by
    /// such files, too.
    pub append_at_end: bool,
}

/// A device that shares what `config` says, as virtio-fs does.
///
/// # Errors
/// When the tag does not fit, the directory cannot be shared, or no thread can be started.
pub fn new(config: Config) -> io::Result<SharedDirectory> {
    let tag = config.share.tag.clone();
    if tag.is_empty() || tag.len() > MAX_TAG || tag.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("9p tag {tag:?} has to have 1 to {MAX_TAG} bytes without NUL"),
        ));
    }
    // `struct virtio_9p_config`: tag_len, tag.
    let mut space = (tag.len() as u16).to_le_bytes().to_vec();
    space.extend(tag.as_bytes());
    let traits = Traits {
        kind: &KIND,
        features: VIRTIO_9P_MOUNT_TAG,
        queue_sizes: vec![QUEUE_SIZE],
        config: Arc::new(ConfigSpace::new(space)?),
        own_loop: false,
    };
    SharedDirectory::new(traits, tag, move || P9::new(&config))
}
