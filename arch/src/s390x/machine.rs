//! What the machine tells of itself.

/// What the guest is told about. Nothing is announced that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Number of vCPUs; vCPU `n` has the address `n`.
    pub cpus: u32,
    /// Bytes of guest memory.
    pub memory: u64,
}
