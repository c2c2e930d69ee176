//! What the guest can touch: virtio devices, their PCI transport, and the ports a PC kernel probes.
//!
//! Nothing here knows KVM or the machine's memory map: a device sees guest memory and eventfds, a
//! transport sees a [`virtio::Fabric`] that binds eventfds to addresses and interrupts.
//!
//! To find a device: `virtio/console/`, `virtio/rng.rs`, `virtio/fs.rs`; the registers in front of
//! them: `virtio/transport.rs` (what all transports share) and `virtio/pci.rs`.

pub mod event_loop;
pub mod legacy;
pub mod pci;
pub mod seccomp;
pub mod stream;
pub mod virtio;

use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::GuestMemoryMmap;

/// Guest memory, as every device sees it. The bitmap type is the one that the virtiofsd library is
/// written for; no dirty log is kept, and the memory is private and anonymous.
pub type Memory = GuestMemoryMmap<BitmapMmapRegion>;
