//! System calls by name.

use std::str::FromStr;

pub use crate::abi::Abi;

/// s390x, of 64 bits: no kernel of ours has the calls of 31 bits.
pub static ABIS: [Abi; 1] = [Abi {
    audit: 0x8000_0016,
    number: |name| u32::try_from(syscalls::s390x::Sysno::from_str(name).ok()?.id()).ok(),
    end: None,
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_s390x() {
        let [native] = &ABIS;
        assert_eq!((native.number)("read"), Some(3));
        assert_eq!((native.number)("s390_pci_mmio_read"), Some(353));
        assert_eq!((native.number)("arch_prctl"), None);
    }
}
