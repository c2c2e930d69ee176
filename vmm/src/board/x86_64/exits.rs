//! What a PC leaves the guest for, as it is counted.

use kvm_ioctls::VcpuExit;

/// The reasons that are told one by one: IN and OUT instructions, reads of addresses that are not memory, and writes, unless they are
/// bound to an ioeventfd.
pub(crate) const REASONS: [&str; 4] = ["port reads", "port writes", "mmio reads", "mmio writes"];

/// The number of an exit's reason in [`REASONS`], or any other.
pub(crate) fn reason(exit: &VcpuExit<'_>) -> usize {
    match exit {
        VcpuExit::IoIn(..) => 0,
        VcpuExit::IoOut(..) => 1,
        VcpuExit::MmioRead(..) => 2,
        VcpuExit::MmioWrite(..) => 3,
        _ => REASONS.len(),
    }
}
