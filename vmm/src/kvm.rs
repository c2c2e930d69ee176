//! The host's KVM: opening it, and whether it can do what we need.

use std::fs;
use std::io;

use kvm_ioctls::{Cap, Kvm};

/// What is wrong with the host's KVM, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no device node.
    #[error(
        "/dev/kvm: not found: load the module kvm_intel or kvm_amd, enable virtualisation in the \
         firmware, or (in a container) pass the device in"
    )]
    Missing,
    /// The device node is closed to us.
    #[error("/dev/kvm: permission denied: run as root or as a member of the group that owns it")]
    Denied,
    /// It opens, but does not behave.
    #[error("/dev/kvm: {0}")]
    Broken(io::Error),
    /// Some other API than the one that has been stable since Linux 2.6.22.
    #[error("/dev/kvm: API version {0}, but only version 12 is known: use a current Linux kernel")]
    Version(i32),
    /// A KVM that lacks what a guest of ours needs.
    #[error("/dev/kvm: no {0}: use a newer Linux kernel on the host")]
    Lacks(&'static str),
    /// A KVM without processor support emulates kernel code instruction by instruction.
    #[error(
        "/dev/kvm: cannot run Linux here: the processor shows neither vmx nor svm, so this KVM \
         emulates; use a host with hardware (or nested) virtualisation"
    )]
    Emulating,
}

/// What the monitor cannot do without, in the order of first use.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "user memory regions"),
    (Cap::Irqchip, "in-kernel interrupt controller"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::IoeventfdNoLength, "ioeventfd of any length"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::ExtCpuid, "CPUID control"),
];

/// Opens /dev/kvm and checks that it has what any guest of ours needs.
///
/// # Errors
/// Names what is missing and what to do.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::Denied,
        errno => KvmError::Broken(io::Error::from_raw_os_error(errno)),
    })?;
    match kvm.get_api_version() {
        12 => {}
        version => return Err(KvmError::Version(version)),
    }
    for (cap, name) in NEEDED {
        if !kvm.check_extension(cap) {
            return Err(KvmError::Lacks(name));
        }
    }
    Ok(kvm)
}

/// Whether this machine's KVM runs guests on the processor. Some clouds offer one that emulates
/// kernel mode: small guests run there, Linux does not.
///
/// # Errors
/// [`KvmError::Emulating`] if not.
pub fn check_runs_linux() -> Result<(), KvmError> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").map_err(KvmError::Broken)?;
    if shows_virtualisation(&cpuinfo) {
        Ok(())
    } else {
        Err(KvmError::Emulating)
    }
}

fn shows_virtualisation(cpuinfo: &str) -> bool {
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
