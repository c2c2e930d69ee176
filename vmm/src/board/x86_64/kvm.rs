//! What a PC asks of the host's KVM, beside what any machine does ([`crate::kvm`]).

use kvm_ioctls::Cap;

/// The modules that bring /dev/kvm, and what they need.
pub(crate) const MODULES: &str = "kvm_intel or kvm_amd, enable virtualisation in the firmware";

/// What a PC cannot do without, and what to call it.
pub(crate) const NEEDED: [(Cap, &str); 3] = [
    (Cap::Irqchip, "in-kernel interrupt controller"),
    (Cap::IoeventfdNoLength, "ioeventfd of any length"),
    (Cap::ExtCpuid, "CPUID control"),
];

/// What vCPU threads ask of the kernel beside what they do for any machine.
pub(crate) const VCPU_CALLS: [libc::c_long; 0] = [];

/// Whether guests can have crypto adapters ([`crate::ap`]).
pub(crate) const CRYPTO_ADAPTERS: bool = false;

/// What /proc/cpuinfo shows where [`shows_virtualisation`] is false.
pub(crate) const WITHOUT_VIRTUALISATION: &str = "neither vmx nor svm";

/// Whether the processor runs guests, going by /proc/cpuinfo.
pub(crate) fn shows_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualisation_is_a_whole_word_among_the_flags() {
        assert!(shows_virtualisation("flags\t\t: fpu vmx de\n"));
        assert!(shows_virtualisation("processor: 0\nflags\t\t: fpu svm\n"));
        assert!(!shows_virtualisation(
            "flags\t\t: fpu svm_lock\nbugs: vmx\n"
        ));
        assert!(!shows_virtualisation(""));
    }
}
