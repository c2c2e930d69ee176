//! What a system call filter needs to know of an architecture.

/// An architecture as a system call filter sees it.
#[derive(Debug)]
pub struct Abi {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub audit: u32,
    /// The number of a system call; unset if the architecture has no call of this name.
    pub number: fn(&str) -> Option<u32>,
    /// From here on, numbers are those of another ABI.
    pub end: Option<u32>,
}
