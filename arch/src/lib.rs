//! What the machine looks like to the guest: numbers and bytes. Nothing here holds a KVM handle or
//! knows a device; what KVM must be told comes back as plain values, on x86_64 those of `kvm_bindings`.
//!
//! One folder per architecture; what a machine is described by has the same names in both. s390x's is plain code over
//! bytes, which is tested on x86_64, too. Calls come in this order, all on the thread that builds the VM (the last
//! two steps are x86_64's; s390x has a PSW, `regs::entry`):
//!
//! 1. [`layout::ram_ranges`]: where guest memory goes. The memory must be fresh, that is, all zero.
//! 2. [`kernel::Kernel::read`] and [`kernel::Kernel::load`]: the kernel file into guest memory.
//! 3. [`initrd::load`]: the initial RAM disk, if there is one.
//! 4. [`boot::write`]: command line, firmware tables and boot parameters into guest memory.
//! 5. [`CpuFeatures::parse`] and [`cpuid::Model::new`] once, and [`cpuid::Model::vcpu`] for each vCPU (`KVM_SET_CPUID2`).
//! 6. [`msrs::boot`] for each vCPU (`KVM_SET_MSRS`); [`regs::general`], [`regs::special`] and
//!    [`regs::fpu`] for vCPU 0 alone: the guest starts the others.

use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::GuestMemoryMmap;

mod abi;
pub mod cmdline;
mod image;
pub mod initrd;

// Public, so that on x86_64 what only s390x's monitor uses is no dead code.
#[cfg(any(target_arch = "s390x", test))]
pub mod s390x;
#[cfg(target_arch = "s390x")]
pub use s390x::*;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

pub use image::CopyError;

/// Guest memory: private and anonymous. The bitmap type is that of the virtio-fs library; no dirty
/// log is kept.
pub type Memory = GuestMemoryMmap<BitmapMmapRegion>;

#[cfg(test)]
fn test_memory(size: usize) -> Memory {
    Memory::from_ranges(&[(vm_memory::GuestAddress(0), size)]).unwrap()
}

/// A file without a name that holds `bytes`.
#[cfg(test)]
fn test_file(bytes: &[u8]) -> std::fs::File {
    use std::io::Write;

    let mut file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
    file.write_all(bytes).unwrap();
    file
}
