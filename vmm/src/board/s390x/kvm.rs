//! What a mainframe asks of the host's KVM, beside what any machine does ([`crate::kvm`]).

use crate::hypervisor::Cap;

/// The module that brings /dev/kvm, and what it needs (Linux, arch/s390/kvm/kvm-s390.c, `nested`).
pub(crate) const MODULES: &str = "kvm (if this is a guest of KVM, its host's needs nested=1)";

/// What a mainframe cannot do without, and what to call it.
pub(crate) const NEEDED: [(Cap, &str); 6] = [
    (Cap::S390Irqchip, "interrupts of adapters"),
    (Cap::DeviceCtrl, "floating interrupt controller"),
    (Cap::S390CssSupport, "channel I/O"),
    (Cap::S390UserSigp, "signals between vCPUs"),
    (Cap::S390MemOp, "access to a guest's memory"),
    (Cap::S390VcpuResets, "resets of vCPUs"),
];

/// What vCPU threads ask of the kernel beside what they do for any machine: devices on subchannels hear of eventfds.
pub(crate) const VCPU_CALLS: [libc::c_long; 1] = [libc::SYS_epoll_ctl];

/// Whether guests can have crypto adapters ([`crate::ap`]).
pub(crate) const CRYPTO_ADAPTERS: bool = true;

/// What /proc/cpuinfo shows where [`shows_virtualisation`] is false.
pub(crate) const WITHOUT_VIRTUALISATION: &str = "no sie";

/// Whether the processor runs guests, going by /proc/cpuinfo.
pub(crate) fn shows_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("features"))
        .flat_map(str::split_whitespace)
        .any(|feature| feature == "sie")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualisation_is_a_whole_word_among_the_features() {
        assert!(shows_virtualisation(
            "vendor_id       : IBM/S390\nfeatures\t: esan3 zarch stfle highgprs sie \nfacilities      : 0 1\n"
        ));
        assert!(!shows_virtualisation("features\t: esan3 siesta\n"));
        assert!(!shows_virtualisation("bugs: sie\n"));
    }
}
