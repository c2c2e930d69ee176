//! As much of KVM as a machine of ours needs. Sources are Linux' headers linux/kvm.h and asm/kvm.h, and its
//! documentation of the KVM API (Documentation/virt/kvm/api.rst, devices/s390_flic.rst).
#![allow(unsafe_code)] // requests to ioctl(2), and the pages that it shares with us

mod bindings;
mod system;
mod vcpu;
mod vm;

pub use bindings::{
    AdapterRoute, KVM_MEM_READONLY, flic, interrupt, kvm_run, kvm_s390_io_adapter, kvm_s390_tsch,
    kvm_userspace_memory_region,
};
pub use system::{Cap, Kvm};
pub use vcpu::{Cpu, Intercept, Processor, VcpuExit, VcpuFd};
pub use vm::VmFd;

use std::os::fd::AsRawFd;

use libc::{c_int, c_ulong};
use vmm_sys_util::errno::{Error, Result};
use vmm_sys_util::ioctl::ioctl_with_ref;

use bindings::{kvm_enable_cap, kvm_s390_interrupt, request};

/// What ioctl(2) returned, or why it failed.
fn checked(returned: c_int) -> Result<c_int> {
    if returned < 0 {
        return Err(Error::last());
    }
    Ok(returned)
}

/// A request that reads `argument`.
///
/// # Safety
/// `request` reads a `T`, keeps no address of it, and changes no memory of this process, unless `argument` names some
/// that may be changed.
unsafe fn write<T>(fd: &impl AsRawFd, request: c_ulong, argument: &T) -> Result<()> {
    // SAFETY: as the caller says, and the reference lives until the call is over.
    checked(unsafe { ioctl_with_ref(fd, request, argument) })?;
    Ok(())
}

/// Switches something on, for a VM or a vCPU.
fn enable_cap(fd: &impl AsRawFd, cap: Cap) -> Result<()> {
    let enable = kvm_enable_cap {
        cap: cap as u32,
        ..Default::default()
    };
    // SAFETY: KVM_ENABLE_CAP reads this structure.
    unsafe { write(fd, request::KVM_ENABLE_CAP(), &enable) }
}

/// Has a VM, or a vCPU, be interrupted; of `kind` are [`interrupt`]'s.
fn interrupt(fd: &impl AsRawFd, kind: u32, parm: u32, parm64: u64) -> Result<()> {
    let interrupt = kvm_s390_interrupt { kind, parm, parm64 };
    // SAFETY: KVM_S390_INTERRUPT reads this structure.
    unsafe { write(fd, request::KVM_S390_INTERRUPT(), &interrupt) }
}
