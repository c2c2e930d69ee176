//! KVM's handles and structures: those of rust-vmm's crates, and on s390x, of which these know nothing, our own with the
//! same names.

#[cfg(target_arch = "s390x")]
mod s390x;
#[cfg(target_arch = "s390x")]
pub use s390x::*;

#[cfg(target_arch = "x86_64")]
pub use kvm_bindings::{KVM_MEM_READONLY, kvm_run, kvm_userspace_memory_region};
#[cfg(target_arch = "x86_64")]
pub use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
