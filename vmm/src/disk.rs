//! The host's side of a guest's disks.

use std::path::PathBuf;

use anyhow::{Result, bail};
use devices::dev::DeviceSpec;
pub use devices::dev::blk::Cache;

/// A disk of the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A raw image or a block device.
    pub path: PathBuf,
    /// What the guest finds in /sys/block/vdX/serial: at most [`MAX_SERIAL`] bytes.
    pub serial: String,
    /// What becomes of writes.
    pub cache: Cache,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// The longest serial number in bytes (VIRTIO_BLK_ID_BYTES; virtio 1.3, section 5.2.6).
pub const MAX_SERIAL: usize = 20;

impl Disk {
    /// Opens the disk, for a guest that has `cpus` vCPUs.
    ///
    /// # Errors
    /// Names the path and what is wrong with it.
    pub fn open(&self, _cpus: u32) -> Result<DeviceSpec> {
        bail!("{}: disks are not built yet", self.path.display())
    }
}
