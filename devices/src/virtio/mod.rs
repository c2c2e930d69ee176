//! Virtio 1.3: devices, virtqueues and transports.

mod config_space;
mod device;
mod fabric;
mod queue;

pub use config_space::ConfigSpace;
pub use device::{Activation, DeviceError, DeviceType, Token, VirtioDevice, Watch};
pub use fabric::{Fabric, Gsi, MsiMessage};
pub use queue::{Chain, QueueError, VirtQueue};
