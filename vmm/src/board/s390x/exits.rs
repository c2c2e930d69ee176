//! What a mainframe leaves the guest for, as it is counted.

use crate::hypervisor::{Intercept, VcpuExit};

/// The reasons that are told one by one, by the first byte of the instruction, or both; the last is TEST SUBCHANNEL, for which
/// KVM has an exit of its own.
pub(crate) const REASONS: [&str; 5] = [
    "service calls",
    "I/O",
    "hypercalls",
    "signals",
    "tests of subchannels",
];

/// The number of an exit's reason in [`REASONS`], or any other.
pub(crate) fn reason(exit: &VcpuExit<'_>) -> usize {
    match exit {
        VcpuExit::S390Sieic(_, Intercept { ipa, .. }) => match (ipa >> 8, ipa & 0xff) {
            (0xb2, 0x20) => 0,
            (0xb2, _) => 1,
            (0x83, _) => 2,
            (0xae, _) => 3,
            _ => REASONS.len(),
        },
        VcpuExit::S390Tsch(..) => 4,
        _ => REASONS.len(),
    }
}
