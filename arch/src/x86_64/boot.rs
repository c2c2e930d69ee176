//! What the guest kernel finds in memory besides itself: command line, firmware tables, boot
//! parameters.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::parameters::Parameters;
use super::{acpi, boot_params, descriptors, layout, memory_map, pvh};
use crate::cmdline::{self, CommandLine};
use crate::initrd::Initrd;
use crate::kernel::{Entry, Kernel};
use crate::{Machine, Memory};

/// Room for the ACPI tables in bytes: up to the kernel.
const ACPI_ROOM: usize = (layout::KERNEL_START - layout::ACPI_START.0) as usize;

/// Why the boot data cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel takes a shorter command line than Linux usually does.
    #[error(transparent)]
    CommandLine(#[from] cmdline::Error),
    /// The firmware tables describe each vCPU and outgrew their area.
    #[error("the ACPI tables have {0} bytes, there is room for {ACPI_ROOM}: use fewer vCPUs")]
    TablesTooLarge(usize),
    /// Guest memory is not where [`crate::layout::ram_ranges`] puts it.
    #[error("cannot write boot data into guest memory: {0}")]
    Write(#[from] GuestMemoryError),
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
    command_line.fits(kernel.command_line_max)?;
    let text = command_line.as_str().as_bytes();
    memory.write_slice(text, layout::COMMAND_LINE)?;
    memory.write_obj(
        0u8,
        GuestAddress(layout::COMMAND_LINE.0 + text.len() as u64),
    )?;
    let tables = acpi::tables(machine);
    if tables.len() > ACPI_ROOM {
        return Err(Error::TablesTooLarge(tables.len()));
    }
    memory.write_slice(&tables, layout::ACPI_START)?;
    let parameters = Parameters {
        initrd,
        command_line_size: text.len(),
        memory_map: memory_map::ranges(memory, machine),
    };
    match kernel.entry {
        Entry::Pvh(_) => pvh::write(memory, &parameters)?,
        Entry::Linux64(_) => {
            descriptors::write(memory)?;
            boot_params::write(memory, kernel.setup_header, &parameters)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine {
        cpus: 1,
        pci: true,
        serial: false,
        pvpanic: false,
    };

    fn kernel(entry: fn(GuestAddress) -> Entry, command_line_max: usize) -> Kernel {
        Kernel {
            entry: entry(GuestAddress(16 << 20)),
            segments: Vec::new(),
            end: GuestAddress(20 << 20),
            setup_header: None,
            initrd_max: GuestAddress(layout::LOW_RAM_END),
            command_line_max,
        }
    }

    fn write_to(memory: &Memory, kernel: &Kernel, line: &str) -> Result<(), Error> {
        let line = CommandLine::new(line).unwrap();
        write(memory, kernel, None, &line, &MACHINE)
    }

    fn word(memory: &Memory, address: GuestAddress) -> u32 {
        memory.read_obj(address).unwrap()
    }

    #[test]
    fn each_entry_gets_its_own_parameters() {
        for (entry, magic, header) in [
            (Entry::Pvh as fn(_) -> _, 0x336e_c578, 0),
            (Entry::Linux64 as fn(_) -> _, 0, 0x5372_6448),
        ] {
            let memory = crate::test_memory(2 << 20);
            write_to(&memory, &kernel(entry, 2047), "quiet").unwrap();
            assert_eq!(word(&memory, layout::PVH_START_INFO), magic);
            assert_eq!(
                word(&memory, GuestAddress(layout::ZERO_PAGE.0 + 0x202)),
                header
            );
            let mut line = [1; 6];
            memory.read_slice(&mut line, layout::COMMAND_LINE).unwrap();
            assert_eq!(&line, b"quiet\0");
            assert_eq!(
                word(&memory, layout::ACPI_START),
                u32::from_le_bytes(*b"RSD ")
            );
        }
    }

    #[test]
    fn the_kernel_limits_the_command_line() {
        let memory = crate::test_memory(2 << 20);
        let error = write_to(&memory, &kernel(Entry::Pvh, 4), "quiet").unwrap_err();
        let expected = "the kernel command line has 5 bytes, at most 4 are allowed";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn more_vcpus_than_the_tables_have_room_for() {
        let memory = crate::test_memory(2 << 20);
        let kernel = kernel(Entry::Pvh, 2047);
        let line = CommandLine::new("").unwrap();
        let write_for = |cpus| write(&memory, &kernel, None, &line, &Machine { cpus, ..MACHINE });
        write_for(4096).unwrap();
        let error = write_for(10_000).unwrap_err();
        assert!(error.to_string().contains("room for 131072"), "{error}");
        assert_eq!(word(&memory, GuestAddress(layout::KERNEL_START)), 0);
    }

    #[test]
    fn memory_must_have_the_first_mib() {
        let error = write_to(&crate::test_memory(4096), &kernel(Entry::Pvh, 2047), "").unwrap_err();
        assert!(matches!(error, Error::Write(_)), "{error}");
    }
}
