//! What the firmware tables and the memory map are made from.

/// What the guest is told about. Nothing is announced that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Number of vCPUs; vCPU `n` has the APIC ID `n`.
    pub cpus: u32,
    /// A PCI root with its window and ECAM.
    pub pci: bool,
    /// A 16550 at [`crate::layout::SERIAL_PORT`].
    pub serial: bool,
    /// A pvpanic device at [`crate::layout::PVPANIC_PORT`].
    pub pvpanic: bool,
}
