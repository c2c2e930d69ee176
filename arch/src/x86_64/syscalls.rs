//! System calls by name, for each architecture that a process of the guest can use.

use std::str::FromStr;

pub use crate::abi::Abi;

/// `__X32_SYSCALL_BIT` of asm/unistd.h.
const X32_BIT: u32 = 0x4000_0000;

/// x86_64, which is the native one, and i386.
pub static ABIS: [Abi; 2] = [
    Abi {
        audit: 0xc000_003e,
        number: |name| number(syscalls::x86_64::Sysno::from_str(name).ok()?.id()),
        end: Some(X32_BIT),
    },
    Abi {
        audit: 0x4000_0003,
        number: |name| number(syscalls::x86::Sysno::from_str(name).ok()?.id()),
        end: None,
    },
];

fn number(id: i32) -> Option<u32> {
    u32::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_has_its_own_numbers() {
        let [native, i386] = &ABIS;
        assert_eq!((native.number)("read"), Some(0));
        assert_eq!((i386.number)("read"), Some(3));
        assert_eq!((native.number)("socketcall"), None);
        assert_eq!((i386.number)("arch_prctl"), Some(384));
        assert_eq!((native.number)("no_such_call"), None);
    }
}
