//! The keyboard controller's ports, of which only the reset line is there.

use super::{MachineEvent, PortDevice};

/// Status (read) and command (write) register, from port 0x60 on.
const COMMAND: u16 = 4;
/// A status of all ones is what a machine without the controller shows: Linux's driver gives up at
/// once as the output buffer never empties, instead of waiting for answers. But a kernel
/// that wants a reset first waits until the input buffer (bit 1) is empty.
const STATUS: u8 = !0x02;
/// Commands 0xf0 to 0xff pulse the output lines whose bit is 0; line 0 is the CPU's reset.
const PULSE: u8 = 0xf0;
const RESET_LINE: u8 = 0x01;

/// Ports 0x60 to 0x64: the second way to reset a PC, after ACPI's.
#[derive(Debug, Default)]
pub struct I8042;

impl I8042 {
    /// The first port, and how many.
    pub const PORTS: (u16, u16) = (0x60, 5);
}

impl PortDevice for I8042 {
    fn read(&mut self, offset: u16) -> u8 {
        if offset == COMMAND { STATUS } else { 0xff }
    }

    fn write(&mut self, offset: u16, value: u8) -> Option<MachineEvent> {
        let resets = offset == COMMAND && value & PULSE == PULSE && value & RESET_LINE == 0;
        resets.then_some(MachineEvent::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pulse_on_the_reset_line_resets() {
        let mut device = I8042;
        assert_eq!(device.write(4, 0xfe), Some(MachineEvent::Reset));
        assert_eq!(device.write(4, 0xf0), Some(MachineEvent::Reset));
        assert_eq!(device.write(4, 0xff), None);
        assert_eq!(device.write(4, 0x20), None);
        assert_eq!(device.write(0, 0xfe), None);
        assert_eq!(device.read(4) & 0x02, 0, "a command can be written");
    }
}
