//! Block device (virtio 1.3, section 5.2): a disk of the guest's, in a file or a block device of the host's.

mod cache;

pub use cache::Cache;
