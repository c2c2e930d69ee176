//! What the guest can touch: virtio devices, their transports, and the ports a PC kernel probes.
//!
//! Nothing here knows KVM or the machine's memory map: a device sees guest memory and eventfds, a
//! transport sees a [`fabric::Fabric`] that binds eventfds to addresses and interrupts.
//!
//! To find a device: `dev/`, the list of all virtio devices in `dev/mod.rs`; what each of them is
//! to the rest: `device.rs`; the registers in front of them: `transport/mod.rs` (what all
//! transports share), `transport/pci/`, and `transport/ccw/` on the channel subsystem of `css/`;
//! the rings in guest memory: `queue/`; the thread that
//! serves them: `event_loop/`; the kernel's own devices behind them: `vhost.rs`.

pub mod config_space;
pub mod css;
pub mod dev;
pub mod device;
pub mod event_loop;
pub mod fabric;
pub mod legacy;
mod log_limit;
pub mod pci;
pub mod queue;
pub mod seccomp;
pub mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
mod vhost;

use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::GuestMemoryMmap;

/// Guest memory, as every device sees it. The bitmap type is the one that the virtiofsd library is
/// written for; no dirty log is kept, and the memory is private and anonymous.
pub type Memory = GuestMemoryMmap<BitmapMmapRegion>;
