//! Power-off, reset and panic, each a register that a guest writes once.

use super::{MachineEvent, PortDevice};

/// The registers of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7 and 4.8.3.6): sleep control,
/// sleep status and reset, at consecutive ports that the FADT names.
#[derive(Debug, Default)]
pub struct Power;

impl Power {
    /// How many ports.
    pub const PORTS: u16 = 3;
    /// The sleep control register (FADT: SLEEP_CONTROL_REG), from the first port.
    pub const SLEEP_CONTROL: u16 = 0;
    /// The sleep status register (FADT: SLEEP_STATUS_REG).
    pub const SLEEP_STATUS: u16 = 1;
    /// The reset register (FADT: RESET_REG).
    pub const RESET: u16 = 2;
    /// What the guest writes to the reset register (FADT: RESET_VALUE).
    pub const RESET_VALUE: u8 = 1;
    /// The sleep type of soft-off (DSDT: `_S5`).
    pub const S5: u8 = 5;
    /// Sleep control: SLP_EN, and where SLP_TYP (3 bits) is.
    const ENABLE: u8 = 1 << 5;
    const TYPE_SHIFT: u8 = 2;
    const TYPE_MASK: u8 = 7;
}

impl PortDevice for Power {
    fn read(&mut self, _offset: u16) -> u8 {
        // Nothing to resume from: the wake status (bit 7) stays clear.
        0
    }

    fn write(&mut self, offset: u16, value: u8) -> Option<MachineEvent> {
        let sleep_type = value >> Self::TYPE_SHIFT & Self::TYPE_MASK;
        match offset {
            Self::SLEEP_CONTROL if value & Self::ENABLE != 0 && sleep_type == Self::S5 => {
                Some(MachineEvent::PowerOff)
            }
            Self::RESET if value == Self::RESET_VALUE => Some(MachineEvent::Reset),
            _ => None,
        }
    }
}

/// The pvpanic device (ACPI id QEMU0001), by which a guest's kernel tells that it panicked.
#[derive(Debug, Default)]
pub struct Panic;

impl Panic {
    /// The event "panicked". Linux writes only the events that it has read before.
    const PANICKED: u8 = 1;
}

impl PortDevice for Panic {
    fn read(&mut self, _offset: u16) -> u8 {
        Self::PANICKED
    }

    fn write(&mut self, _offset: u16, value: u8) -> Option<MachineEvent> {
        (value & Self::PANICKED != 0).then_some(MachineEvent::GuestPanic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_off_and_reset() {
        let mut power = Power;
        // As Linux writes it: SLP_TYP 5, then with SLP_EN.
        assert_eq!(power.write(Power::SLEEP_CONTROL, 5 << 2), None);
        let off = power.write(Power::SLEEP_CONTROL, 5 << 2 | 1 << 5);
        assert_eq!(off, Some(MachineEvent::PowerOff));
        assert_eq!(power.write(Power::SLEEP_CONTROL, 3 << 2 | 1 << 5), None);
        assert_eq!(power.write(Power::SLEEP_STATUS, 0x80), None);
        assert_eq!(power.write(Power::RESET, 0), None);
        assert_eq!(power.write(Power::RESET, 1), Some(MachineEvent::Reset));
    }

    #[test]
    fn a_panic_is_told() {
        let mut panic = Panic;
        let events = panic.read(0);
        assert_eq!(panic.write(0, events), Some(MachineEvent::GuestPanic));
        assert_eq!(panic.write(0, 2), None);
    }
}
