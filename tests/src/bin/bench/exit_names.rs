//! Names for the numbers in KVM's tracepoints.

/// What the keys of a histogram of `event` mean.
pub(crate) fn of(event: &str, keys: &[u64]) -> String {
    match (event, keys) {
        ("kvm_exit", [vendor, reason]) => exit(*vendor, *reason),
        ("kvm_pio", [rw, port]) => format!("{} {port:#x}", if *rw == 0 { "in" } else { "out" }),
        ("kvm_mmio", [kind, address]) => {
            // KVM_TRACE_MMIO_*: a read that a device answers is told twice, first as not satisfied.
            let kind = match kind {
                0 => "unsatisfied read",
                1 => "read",
                _ => "write",
            };
            format!("{kind} {address:#x}")
        }
        ("kvm_msr", [write, msr]) => {
            format!("{} {msr:#x}", if *write == 0 { "rdmsr" } else { "wrmsr" })
        }
        _ => format!("{keys:?}"),
    }
}

/// Exit reasons by the processor's vendor, as in the event's field `isa`: 1 is Intel's VMX (SDM volume 3,
/// appendix C), 2 AMD's SVM (APM volume 2, appendix C).
fn exit(vendor: u64, reason: u64) -> String {
    let name = match (vendor, reason) {
        (1, 0) | (2, 0x40..=0x5f) => "exception",
        (1, 1) | (2, 0x60) => "interrupt of the host",
        (1, 7) | (2, 0x64) => "interrupt window",
        (1, 10) | (2, 0x72) => "CPUID",
        (1, 12) | (2, 0x78) => "HLT",
        (1, 28) | (2, 0..=0x1f) => "control register",
        (1, 30) | (2, 0x7b) => "port I/O",
        (1, 31 | 32) | (2, 0x7c) => "MSR",
        (1, 48) | (2, 0x400) => "no memory there (or not yet)",
        (1, 49) => "EPT misconfiguration (MMIO)",
        (1, 54) | (2, 0x89) => "WBINVD",
        (1, 55) | (2, 0x8d) => "XSETBV",
        (2, 0x81) => "VMMCALL",
        (1, 18) => "VMCALL",
        (2, 0x20..=0x3f) => "debug register",
        _ => return format!("reason {reason:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_named() {
        assert_eq!(of("kvm_exit", &[2, 0x72]), "CPUID");
        assert_eq!(of("kvm_exit", &[1, 10]), "CPUID");
        assert_eq!(of("kvm_exit", &[2, 0x999]), "reason 0x999");
        assert_eq!(of("kvm_pio", &[0, 0x3fd]), "in 0x3fd");
        assert_eq!(of("kvm_mmio", &[2, 0xfec0_0000]), "write 0xfec00000");
    }
}
