//! Whether this machine can run Linux guests itself.

use std::fs::{self, OpenOptions};

/// What this machine's KVM is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// Linux guests run here: the CPU's flag (`svm` or `vmx`).
    Hardware(&'static str),
    /// They need the emulated test host, for this reason.
    Emulated(String),
}

impl std::fmt::Display for Kvm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hardware(flag) => write!(f, "hardware KVM ({flag})"),
            Self::Emulated(reason) => write!(f, "the emulated test host ({reason})"),
        }
    }
}

/// Decides by the CPU's flags and by opening /dev/kvm. The flags count: a paravirtual KVM without them has a
/// /dev/kvm too, but cannot run a Linux kernel.
#[must_use]
pub fn detect() -> Kvm {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    decide(&cpuinfo, device.map(drop))
}

fn decide(cpuinfo: &str, device: std::io::Result<()>) -> Kvm {
    let flag = ["svm", "vmx"]
        .into_iter()
        .find(|flag| has_flag(cpuinfo, flag));
    match (flag, device) {
        (Some(flag), Ok(())) => Kvm::Hardware(flag),
        (Some(_), Err(error)) => Kvm::Emulated(format!("/dev/kvm: {error}")),
        (None, _) => Kvm::Emulated("the CPU has neither svm nor vmx".to_owned()),
    }
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
        .is_some_and(|(_, flags)| flags.split_whitespace().any(|word| word == flag))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const AMD: &str = "processor\t: 0\nflags\t\t: fpu svm npt\nbugs\t\t: none\n";
    const INTEL: &str = "processor\t: 0\nflags\t\t: fpu vmx\nvmx flags\t: ept\n";
    const NONE: &str = "processor\t: 0\nflags\t\t: fpu svm_lock vmxish\nvmx flags\t: vmx\n";

    #[test]
    fn flags_and_device_decide() {
        assert_eq!(decide(AMD, Ok(())), Kvm::Hardware("svm"));
        assert_eq!(decide(INTEL, Ok(())), Kvm::Hardware("vmx"));
        assert!(matches!(decide(NONE, Ok(())), Kvm::Emulated(_)));
        assert!(matches!(decide("", Ok(())), Kvm::Emulated(_)));
        let denied = decide(AMD, Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(
            denied,
            Kvm::Emulated("/dev/kvm: permission denied".to_owned())
        );
    }
}
