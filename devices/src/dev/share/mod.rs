//! A directory of the host that the guest mounts: what virtio-fs and virtio-9p have in common, which is all
//! but the protocol.

mod answer;
mod checked;
mod confinement;
mod device;
mod files;
#[cfg(test)]
pub(super) mod guest_test;
mod locks;
mod nodes;
mod opens;
#[cfg(test)]
mod opens_test;
mod requests;
mod threads;
#[cfg(test)]
mod threads_test;
mod under_way;
mod watches;

use std::path::PathBuf;

use crate::device::DeviceError;
use crate::queue::Chain;

pub use confinement::CAPABILITIES;
pub use device::SharedDirectory;
pub use files::raise_open_files_limit;

pub(super) use checked::Checked;
#[cfg(test)]
pub(super) use device::FAILED_TOKEN;
pub(super) use device::SYSTEM_CALLS;
pub(super) use files::{Files, open_files_limit};

/// What is shared, and by which name.
#[derive(Clone, Debug)]
pub struct Config {
    /// By which the guest mounts it.
    pub tag: String,
    /// The directory. Mounts below it are visible too.
    pub directory: PathBuf,
    /// Whether the guest can change nothing.
    pub read_only: bool,
}

/// A protocol by which a driver reaches the files.
pub(super) trait Protocol: Sync {
    /// Executes the request in `chain`, and returns the length of the answer. However long that takes, others
    /// are executed meanwhile.
    ///
    /// # Errors
    /// When it is no request, or there is too little room for the answer.
    fn handle(&self, chain: Chain) -> Result<u32, DeviceError>;

    /// Whether the request in `chain` is executed only when all that came before it are answered.
    fn waits_for_earlier(&self, _chain: &Chain) -> bool {
        false
    }

    /// No request comes any more: those that wait for others return soon. Several threads may say so.
    fn end(&self) {}

    /// Closes all that the guest has open.
    fn forget(&self);
}
