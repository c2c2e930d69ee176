//! The host's KVM: opening it, and whether it can do what we need.

use std::fs;
use std::io;

use crate::board::kvm::{MODULES, NEEDED, WITHOUT_VIRTUALISATION, shows_virtualisation};
use crate::hypervisor::{Cap, Kvm};

/// What is wrong with the host's KVM, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no device node.
    #[error(
        "/dev/kvm: not found: load the module {MODULES}, or (in a container) pass the device in"
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
        "/dev/kvm: cannot run Linux here: the processor shows {WITHOUT_VIRTUALISATION}, so this KVM \
         emulates; use a host with hardware (or nested) virtualisation"
    )]
    Emulating,
}

/// What no machine can do without, in the order of first use.
const ALWAYS_NEEDED: [(Cap, &str); 5] = [
    (Cap::UserMemory, "user memory regions"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::ImmediateExit, "immediate exit"),
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
    let version = kvm.get_api_version();
    if version != 12 {
        return Err(KvmError::Version(version));
    }
    for (cap, name) in ALWAYS_NEEDED.into_iter().chain(NEEDED) {
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
