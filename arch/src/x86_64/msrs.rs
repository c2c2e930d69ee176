//! Model-specific registers that firmware would have set.

use kvm_bindings::kvm_msr_entry;

/// The MSRs to set on each vCPU before it runs (`KVM_SET_MSRS`).
pub fn boot() -> Vec<kvm_msr_entry> {
    todo!()
}
