//! What a mainframe leaves the guest for, as it is counted.

use crate::hypervisor::{Intercept, VcpuExit};

/// The reasons that are told one by one, by the first byte of the instruction; the last is TEST SUBCHANNEL, for which KVM
/// has an exit of its own.
pub(crate) const REASONS: [&str; 4] = [
    "service calls and I/O",
    "hypercalls",
    "signals",
    "tests of subchannels",
];

/// The number of an exit's reason in [`REASONS`], or any other.
pub(crate) fn reason(exit: &VcpuExit<'_>) -> usize {
    match exit {
        VcpuExit::S390Sieic(_, Intercept { ipa, .. }) => match ipa >> 8 {
            0xb2 => 0,
            0x83 => 1,
            0xae => 2,
            _ => REASONS.len(),
        },
        VcpuExit::S390Tsch(..) => 3,
        _ => REASONS.len(),
    }
}
