//! What the guest kernel finds in memory: command line and place of the initrd, in its own parameter area.

use vm_memory::{Be64, Bytes, GuestAddress, GuestMemoryError};

use super::kernel::Kernel;
use super::{Machine, layout};
use crate::Memory;
use crate::cmdline::{self, CommandLine};
use crate::initrd::Initrd;

/// Why the boot data cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel takes a shorter command line than Linux usually does.
    #[error(transparent)]
    CommandLine(#[from] cmdline::Error),
    /// No kernel is loaded there.
    #[error("cannot write boot data into guest memory: {0}")]
    Write(#[from] GuestMemoryError),
}

/// Writes the command line and the initrd's place, over the kernel that is loaded. The machine tells the rest of itself
/// when it is asked ([`super::sclp`]).
///
/// # Errors
/// When the command line is too long, or guest memory too small.
pub fn write(
    memory: &Memory,
    kernel: &Kernel,
    initrd: Option<&Initrd>,
    command_line: &CommandLine,
    _: &Machine,
) -> Result<(), Error> {
    command_line.fits(kernel.command_line_max)?;
    let text = command_line.as_str().as_bytes();
    memory.write_slice(text, layout::COMMAND_LINE)?;
    let end = GuestAddress(layout::COMMAND_LINE.0 + text.len() as u64);
    memory.write_obj(0u8, end)?;
    let (start, size) = initrd.map_or((0, 0), |initrd| (initrd.address.0, initrd.size));
    memory.write_obj(Be64::from(start), layout::INITRD_START)?;
    memory.write_obj(Be64::from(size), layout::INITRD_SIZE)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::kernel::Entry;
    use super::*;
    use crate::test_memory;

    const MACHINE: Machine = Machine {
        cpus: 1,
        memory: 1 << 20,
    };

    fn kernel(command_line_max: usize) -> Kernel {
        Kernel {
            entry: Entry(GuestAddress(layout::KERNEL_START)),
            end: GuestAddress(0x2_0000),
            command_line_max,
        }
    }

    #[test]
    fn the_kernel_finds_command_line_and_initrd() {
        let memory = test_memory(1 << 20);
        memory
            .write_slice(b"root=/dev/ram0 ro\0", layout::COMMAND_LINE)
            .unwrap();
        let initrd = Initrd {
            address: GuestAddress(0xf_0000),
            size: 5000,
        };
        let line = CommandLine::new("quiet").unwrap();
        write(&memory, &kernel(895), Some(&initrd), &line, &MACHINE).unwrap();
        let mut text = [0; 6];
        memory
            .read_slice(&mut text, GuestAddress(0x1_0480))
            .unwrap();
        assert_eq!(&text, b"quiet\0");
        let mut area = [0; 16];
        memory
            .read_slice(&mut area, GuestAddress(0x1_0408))
            .unwrap();
        assert_eq!(area, *b"\0\0\0\0\0\x0f\0\0\0\0\0\0\0\0\x13\x88");
    }

    #[test]
    fn the_kernel_limits_the_command_line() {
        let line = CommandLine::new("quiet").unwrap();
        let error = write(&test_memory(1 << 20), &kernel(4), None, &line, &MACHINE).unwrap_err();
        let expected = "the kernel command line has 5 bytes, at most 4 are allowed";
        assert_eq!(error.to_string(), expected);
    }
}
