//! /dev/kvm.

use std::fs::File;
use std::os::fd::FromRawFd;

use libc::c_ulong;
use vmm_sys_util::errno::Result;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_val};

use super::bindings::request;
use super::checked;
use super::vm::VmFd;

/// What a host's KVM may have: `KVM_CAP_*`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
#[allow(missing_docs)] // as the header has them
pub enum Cap {
    UserMemory = 3,
    NrVcpus = 9,
    IrqRouting = 25,
    Irqfd = 32,
    Ioeventfd = 36,
    MaxVcpus = 66,
    /// Pages of guest memory may be write-protected on the host, which the guest does not notice.
    S390Cow = 79,
    S390CssSupport = 85,
    DeviceCtrl = 89,
    S390Irqchip = 99,
    S390UserSigp = 106,
    S390VectorRegisters = 107,
    S390MemOp = 108,
    ImmediateExit = 136,
    /// Guarded storage.
    S390Gs = 140,
    S390VcpuResets = 179,
}

/// The host's KVM.
#[derive(Debug)]
pub struct Kvm(File);

impl Kvm {
    /// Opens it.
    ///
    /// # Errors
    /// As open(2).
    pub fn new() -> Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/kvm");
        Ok(Self(file?))
    }

    /// The version of its API.
    pub fn get_api_version(&self) -> i32 {
        // SAFETY: the request has no argument.
        unsafe { ioctl(&self.0, request::KVM_GET_API_VERSION()) }
    }

    /// Whether it has something.
    pub fn check_extension(&self, cap: Cap) -> bool {
        self.check_extension_int(cap) > 0
    }

    /// How much it has of something.
    pub fn check_extension_int(&self, cap: Cap) -> i32 {
        // SAFETY: the argument of the request is a number.
        unsafe { ioctl_with_val(&self.0, request::KVM_CHECK_EXTENSION(), cap as c_ulong) }
    }

    /// How many vCPUs it recommends for a VM at most.
    pub fn get_nr_vcpus(&self) -> usize {
        self.check_extension_int(Cap::NrVcpus)
            .try_into()
            .unwrap_or(0)
    }

    /// How many vCPUs a VM has at most.
    pub fn get_max_vcpus(&self) -> usize {
        self.check_extension_int(Cap::MaxVcpus)
            .try_into()
            .unwrap_or(0)
    }

    /// Makes a VM.
    ///
    /// # Errors
    /// EINVAL in a program that is linked without `--s390-pgste`.
    pub fn create_vm(&self) -> Result<VmFd> {
        // SAFETY: the request has no argument.
        let size = checked(unsafe { ioctl(&self.0, request::KVM_GET_VCPU_MMAP_SIZE()) })?;
        // SAFETY: the argument of the request is a number, 0 for the usual type.
        let fd = checked(unsafe { ioctl_with_val(&self.0, request::KVM_CREATE_VM(), 0) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        // It is not negative.
        Ok(VmFd::new(file, size as usize))
    }
}
