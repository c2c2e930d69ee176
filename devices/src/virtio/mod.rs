//! Virtio 1.3: devices, virtqueues and transports.

mod config_space;
mod device;
mod fabric;
pub(crate) mod handle;
mod log_limit;
mod msix;
mod pci;
mod pci_capabilities;
mod pci_common;
mod queue;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
pub(crate) mod worker;

pub use config_space::ConfigSpace;
pub use device::{Activation, DeviceError, DeviceType, Token, VirtioDevice, Watch};
pub use fabric::{Fabric, Gsi, MsiMessage};
pub use handle::DeviceHandle;
pub use pci::{VirtioPci, VirtioPciError};
pub use queue::{Chain, QueueError, VirtQueue};
