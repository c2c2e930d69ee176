//! A directory of the host that the guest mounts: what virtio-fs and virtio-9p have in common, which is all
//! but the protocol.

mod answer;
mod checked;
mod confinement;
mod device;
mod files;
mod flush;
#[cfg(test)]
pub(super) mod guest_test;
mod locks;
mod nodes;
mod opens;
#[cfg(test)]
mod opens_test;
mod reminder;
mod requests;
mod room;
mod threads;
#[cfg(test)]
mod threads_test;
mod under_way;
mod virtual_files;
mod watched;
mod watches;

use std::path::PathBuf;
use std::sync::Arc;

use crate::device::DeviceError;
use crate::queue::Chain;

pub use confinement::CAPABILITIES;
pub use device::SharedDirectory;
pub use files::raise_open_files_limit;
pub use reminder::Reminder;

pub(super) use checked::Checked;
#[cfg(test)]
pub(super) use device::FAILED_TOKEN;
pub(super) use device::SYSTEM_CALLS;
pub(super) use files::{Files, most_files};
pub(super) use opens::OPEN_CHECKED;
pub(super) use watches::{EVENTS, WATCH};

/// What is shared, and by which name.
#[derive(Clone, Debug)]
pub struct Config {
    /// By which the guest mounts it.
    pub tag: String,
    /// The directory. Mounts below it are visible too.
    pub directory: PathBuf,
    /// Whether the guest can change nothing.
    pub read_only: bool,
    /// Those of [`CAPABILITIES`] that the threads do not keep: what nobody in the guest may do, a guest that obeys no
    /// kernel cannot do either.
    pub without: Vec<&'static str>,
    /// How many files the guest may know, or have open, at once, as far as this process may.
    pub most_files: u64,
    /// By whom the guest hears that these become many.
    pub reminder: Option<Arc<Reminder>>,
}

impl Config {
    /// A directory of which the guest may know all files, as far as this process may.
    pub fn new(tag: impl Into<String>, directory: impl Into<PathBuf>, read_only: bool) -> Self {
        Self {
            tag: tag.into(),
            directory: directory.into(),
            read_only,
            without: Vec::new(),
            most_files: u64::MAX,
            reminder: None,
        }
    }
}

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As soon as the files allow.
    Prompt,
    /// By and by: the driver goes on without the answer.
    Lazy,
    /// When others allow, which may be never.
    Unbounded,
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

    /// When the request in `chain` is answered.
    fn pace(&self, _chain: &Chain) -> Pace {
        Pace::Prompt
    }

    /// No request comes any more: those that wait for others return soon. Several threads may say so.
    fn end(&self) {}

    /// Closes all that the guest has open.
    fn forget(&self);
}
