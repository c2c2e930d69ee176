//! The registers of vCPU 0 when it enters the kernel. The other vCPUs wait for the guest to start
//! them, in the state that KVM gave them.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};

use crate::kernel::Entry;

/// General registers (`KVM_SET_REGS`).
pub fn general(entry: Entry) -> kvm_regs {
    let _ = entry;
    todo!()
}

/// Segments, control registers and descriptor tables (`KVM_SET_SREGS`), made from what
/// `KVM_GET_SREGS` returned.
pub fn special(entry: Entry, initial: &kvm_sregs) -> kvm_sregs {
    let _ = (entry, initial);
    todo!()
}

/// The floating-point unit after FNINIT, MXCSR as after reset (`KVM_SET_FPU`).
pub fn fpu() -> kvm_fpu {
    todo!()
}
