//! Channel programs: where they begin, and their commands.

use super::block::{Field, block};

block! {
    /// Operation request block: what SSCH starts (15.1.2).
    Orb {
        /// What the guest finds with the interruption.
        parameter: u32,
        /// [`orb_control`].
        control: u16,
        /// Paths that may be used.
        paths: u8,
        /// Suppression of incorrect lengths, modified indirect addressing, extension.
        more: u8,
        /// Address of the first command.
        program: u32,
    }
}

/// Of [`Orb::control`].
pub mod orb_control {
    /// The program may suspend itself.
    pub const SUSPEND: u16 = 0x0800;
    /// Commands are of format 1.
    pub const FORMAT_1: u16 = 0x0080;
    /// Commands may be fetched ahead.
    pub const PREFETCH: u16 = 0x0040;
}

/// Of the layouts of a command (15.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Addresses of 24 bits.
    Zero,
    /// Addresses of 31 bits.
    One,
}

impl Orb {
    /// Layout of the program's commands.
    pub fn format(&self) -> Format {
        match self.control & orb_control::FORMAT_1 {
            0 => Format::Zero,
            _ => Format::One,
        }
    }

    /// Whether SSCH takes it, which is refused with an operand exception otherwise.
    pub fn is_valid(&self) -> bool {
        /// These have to be 0; modified indirect addressing, which no device of ours has.
        const INVALID: u16 = 0x0004;
        const MORE_INVALID: u8 = 0x3e | 0x40;
        self.control & INVALID == 0 && self.more & MORE_INVALID == 0 && self.program >> 31 == 0
    }
}

/// A command of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ccw {
    /// What to do.
    pub command: u8,
    /// [`command`]'s flags.
    pub flags: u8,
    /// Bytes of data.
    pub count: u16,
    /// Where they are, or where the program goes on.
    pub address: u32,
}

/// Commands that any device has, and flags of all commands.
pub mod command {
    /// Does nothing.
    pub const NO_OPERATION: u8 = 0x03;
    /// Fetches sense data.
    pub const SENSE: u8 = 0x04;
    /// Goes on elsewhere, whatever the upper four bits are in format 0.
    pub const TRANSFER_IN_CHANNEL: u8 = 0x08;
    /// Tells what the device is.
    pub const SENSE_ID: u8 = 0xe4;
    /// The data go on with those of the next command.
    pub const CHAIN_DATA: u8 = 0x80;
    /// The program goes on with the next command.
    pub const CHAIN_COMMAND: u8 = 0x40;
    /// Another length of data is no error.
    pub const SUPPRESS_LENGTH: u8 = 0x20;
    /// Data are left out.
    pub const SKIP: u8 = 0x10;
    /// Interrupts when it is fetched.
    pub const INTERRUPT: u8 = 0x08;
    /// The address is that of a list of addresses.
    pub const INDIRECT: u8 = 0x04;
    /// The program waits to be resumed.
    pub const SUSPEND: u8 = 0x02;
}

impl Ccw {
    /// Bytes of a command in guest memory.
    pub const SIZE: usize = 8;

    /// From guest memory; unset if an address has more bits than there are, which is a program check.
    pub fn from_bytes(format: Format, bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let rest = &mut &bytes[..];
        let command = u8::take(rest);
        match format {
            Format::Zero => {
                let [high, middle, low] = Field::take(rest);
                let [flags, _] = Field::take(rest);
                Some(Self {
                    command,
                    flags,
                    count: Field::take(rest),
                    address: u32::from_be_bytes([0, high, middle, low]),
                })
            }
            Format::One => {
                let ccw = Self {
                    command,
                    flags: Field::take(rest),
                    count: Field::take(rest),
                    address: Field::take(rest),
                };
                (ccw.address >> 31 == 0).then_some(ccw)
            }
        }
    }

    /// Whether it is a transfer in channel.
    pub fn is_transfer(&self, format: Format) -> bool {
        let command = match format {
            Format::Zero => self.command & 0x0f,
            Format::One => self.command,
        };
        command == command::TRANSFER_IN_CHANNEL
    }
}

block! {
    /// What a device answers to SENSE ID (Common I/O-Device Commands, SA22-7204).
    SenseId {
        /// Always 0xff.
        valid: u8,
        /// Type of the control unit.
        unit_type: u16,
        /// Its model.
        unit_model: u8,
        /// Type of the device.
        device_type: u16,
        /// Its model.
        device_model: u8,
        /// Always 0.
        unused: u8,
    }
}

impl SenseId {
    /// A virtio device, by its ID (virtio 1.3, section 4.3.1).
    pub fn virtio(device: u8) -> Self {
        Self {
            valid: 0xff,
            unit_type: 0x3832,
            unit_model: device,
            ..Self::default()
        }
    }
}
