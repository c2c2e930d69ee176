//! What the guest kernel finds in memory besides itself: command line, firmware tables, boot
//! parameters.

use crate::Memory;
use crate::cmdline::{self, CommandLine};
use crate::initrd::Initrd;
use crate::kernel::Kernel;

/// What the firmware tables tell the guest about. Nothing is announced that is not there.
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

/// Why the boot data cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel takes a shorter command line than Linux usually does.
    #[error(transparent)]
    CommandLine(#[from] cmdline::Error),
    /// The firmware tables describe each vCPU and outgrew their area.
    #[error("the ACPI tables have {size} bytes, there is room for {room}: use fewer vCPUs")]
    TablesTooLarge {
        /// Their length in bytes.
        size: u64,
        /// The room in bytes.
        room: u64,
    },
    /// Guest memory is not where [`crate::layout::ram_ranges`] puts it.
    #[error("cannot write boot data into guest memory: {0}")]
    Write(#[from] vm_memory::GuestMemoryError),
}

/// Writes the command line, the ACPI tables, and the boot parameters that the kernel's entry wants.
///
/// # Errors
/// When the command line or the tables are too long, or guest memory is too small.
pub fn write(
    memory: &Memory,
    kernel: &Kernel,
    initrd: Option<&Initrd>,
    command_line: &CommandLine,
    machine: &Machine,
) -> Result<(), Error> {
    let _ = (memory, kernel, initrd, command_line, machine);
    todo!()
}
