//! System calls by name, for each architecture that a guest's process can use.

use std::str::FromStr;

/// An architecture as far as a filter sees it.
pub(super) struct Abi {
    /// Its name in a profile.
    pub(super) name: &'static str,
    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub(super) audit: u32,
    /// The number of a system call.
    pub(super) number: fn(&str) -> Option<u32>,
    /// From here on, numbers are those of another ABI.
    pub(super) end: Option<u32>,
}

/// `__X32_SYSCALL_BIT` of asm/unistd.h.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// The native one first.
static ABIS: [Abi; 2] = [
    Abi {
        name: "SCMP_ARCH_X86_64",
        audit: 0xc000_003e,
        number: |name| number(syscalls::x86_64::Sysno::from_str(name).ok()?.id()),
        end: Some(X32_BIT),
    },
    Abi {
        name: "SCMP_ARCH_X86",
        audit: 0x4000_0003,
        number: |name| number(syscalls::x86::Sysno::from_str(name).ok()?.id()),
        end: None,
    },
];

fn number(id: i32) -> Option<u32> {
    u32::try_from(id).ok()
}

/// The native architecture, and those others of the list that a guest can have.
pub(super) fn listed(names: &[String]) -> impl Iterator<Item = &'static Abi> {
    let (native, others) = ABIS.split_at(1);
    let others = others
        .iter()
        .filter(|abi| names.iter().any(|name| name == abi.name));
    native.iter().chain(others)
}
