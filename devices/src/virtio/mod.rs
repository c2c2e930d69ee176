//! Virtio 1.3: devices, virtqueues and transports.

mod buffers;
mod config_space;
pub mod console;
mod device;
mod fabric;
pub mod fs;
#[cfg(test)]
pub(crate) mod guest;
pub(crate) mod handle;
mod log_limit;
mod msix;
mod pci;
mod pci_capabilities;
mod pci_common;
#[cfg(test)]
pub(crate) mod probe;
mod queue;
mod queue_registers;
pub mod rng;
mod spec;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
mod turn;
pub(crate) mod worker;

pub use config_space::ConfigSpace;
pub use device::{Activation, DeviceError, DeviceType, Token, VirtioDevice, Watch};
pub use fabric::{Fabric, Gsi, MsiMessage};
pub use handle::DeviceHandle;
pub use pci::{VirtioPci, VirtioPciError};
pub use queue::{Chain, QueueError, VirtQueue};
pub use spec::DeviceSpec;
