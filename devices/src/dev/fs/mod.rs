//! File system device (virtio 1.3, section 5.11): a directory of the host, served by the virtiofsd
//! library in this process, on threads of its own.
//!
//! Guest memory stays private to this process that way, which is what lets it be huge pages.

mod asked;
#[cfg(test)]
mod fs_test;
#[cfg(test)]
pub(super) mod guest_test;
#[cfg(test)]
mod hostile_test;
mod server;
mod sink;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use super::share::{Config, SYSTEM_CALLS, SharedDirectory};
use crate::config_space::ConfigSpace;
use crate::device::{DeviceKind, Traits};

use server::Fuse;

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "fs",
    id: VIRTIO_ID_FS as u16,
    system_calls: &SYSTEM_CALLS,
    requests: &[],
};

/// Section 5.11.4: the tag's field, not NUL-terminated if it is full.
const MAX_TAG: usize = 36;

/// Forgets and interrupts; Linux sends them in batches.
const HIPRIO_SIZE: u16 = 128;
/// Linux limits a request to as many pages as the queue has descriptors, less four: this allows the
/// library's 1 MiB.
const REQUEST_SIZE: u16 = 512;
/// One request queue: its requests are handed to as many threads as they need.
const REQUEST_QUEUES: u32 = 1;

/// A device that shares what `config` says, by a tag of 1 to 36 bytes, with its first thread, which
/// inherits the privileges and filters of the caller's, keeps those privileges that it needs, and can
/// reach nothing but the directory. It needs CAP_SYS_CHROOT for that.
///
/// # Errors
/// When the tag does not fit, the directory cannot be shared, or no thread can be started.
pub fn new(config: Config) -> io::Result<SharedDirectory> {
    let tag = config.tag.clone();
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
    let traits = Traits {
        kind: &KIND,
        features: 0,
        queue_sizes: vec![HIPRIO_SIZE, REQUEST_SIZE],
        config: Arc::new(ConfigSpace::new(space)?),
        own_loop: false,
    };
    SharedDirectory::new(traits, tag, move || Fuse::new(&config))
}
