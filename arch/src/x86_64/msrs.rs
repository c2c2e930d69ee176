//! Model-specific registers that firmware would have set. All others start as KVM resets them: the
//! system call registers at 0, the TSC in step with the other vCPUs.

use kvm_bindings::kvm_msr_entry;

/// `IA32_MISC_ENABLE`: with bit 0 clear Linux takes the string instructions for slow.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRING: u64 = 1 << 0;
/// `IA32_MTRR_DEF_TYPE`: without it Linux takes all memory for uncached, and gives up on PAT.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// The MSRs to set on each vCPU before it runs (`KVM_SET_MSRS`).
pub fn boot() -> [kvm_msr_entry; 2] {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    [
        entry(MISC_ENABLE, FAST_STRING),
        entry(MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK),
    ]
}
