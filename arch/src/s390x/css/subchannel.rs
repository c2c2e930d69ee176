//! A subchannel, as the guest names and sees it.

use super::block::block;

block! {
    /// Path management control word: how the guest has set the subchannel up, and what is known of its device (15.1.1).
    Pmcw {
        /// What the guest finds with an interruption.
        parameter: u32,
        /// [`pmcw_flags`].
        flags: u16,
        /// Number of the device.
        device: u16,
        /// Paths that the guest allows.
        logical_paths: u8,
        /// Paths that have turned out not to work.
        not_operational: u8,
        /// Paths that were used last.
        last_used: u8,
        /// Paths that are installed.
        installed: u8,
        /// Where measurements go.
        measurement_index: u16,
        /// Paths that worked last.
        operational: u8,
        /// Paths that are available.
        available: u8,
        /// Their identifiers.
        paths: [u8; 8],
        /// Type of the subchannel, formats of measurements, and whether sense data come with a status.
        characteristics: u32,
    }
}

/// Of [`Pmcw::flags`].
pub mod pmcw_flags {
    /// Class of its interruptions, 0 to 7, from bit 11 on.
    pub const INTERRUPTION_CLASS: u16 = 0x3800;
    /// It may be used.
    pub const ENABLED: u16 = 0x0080;
    /// There is a device.
    pub const DEVICE_VALID: u16 = 0x0001;
    /// These have to be 0.
    pub const INVALID: u16 = 0x0700;
}

block! {
    /// Subchannel status word: what goes on, and how it went (16.1).
    Scsw {
        /// Key, format of the program, deferred condition code.
        flags: u16,
        /// [`scsw_control`].
        control: u16,
        /// Where the program goes on.
        program: u32,
        /// [`device_status`].
        device_status: u8,
        /// [`subchannel_status`].
        subchannel_status: u8,
        /// Bytes that were not used.
        count: u16,
    }
}

/// Of [`Scsw::control`].
pub mod scsw_control {
    /// Functions that are asked for: start, halt, clear.
    pub const START: u16 = 0x4000;
    /// See [`START`].
    pub const HALT: u16 = 0x2000;
    /// See [`START`].
    pub const CLEAR: u16 = 0x1000;
    /// All functions.
    pub const FUNCTIONS: u16 = 0x7000;
    /// What is under way.
    pub const ACTIVITY: u16 = 0x0fe0;
    /// Waits to be resumed.
    pub const SUSPENDED: u16 = 0x0020;
    /// Kinds of status: alert, intermediate, primary, secondary.
    pub const ALERT: u16 = 0x0010;
    /// See [`ALERT`].
    pub const INTERMEDIATE: u16 = 0x0008;
    /// See [`ALERT`].
    pub const PRIMARY: u16 = 0x0004;
    /// See [`ALERT`].
    pub const SECONDARY: u16 = 0x0002;
    /// There is a status for the guest to fetch.
    pub const STATUS_PENDING: u16 = 0x0001;
}

/// Of [`Scsw::device_status`].
pub mod device_status {
    /// The channel has done its part.
    pub const CHANNEL_END: u8 = 0x08;
    /// The device has done its part.
    pub const DEVICE_END: u8 = 0x04;
    /// The device has sense data to tell what is wrong.
    pub const UNIT_CHECK: u8 = 0x02;
}

/// Of [`Scsw::subchannel_status`].
pub mod subchannel_status {
    /// The command's count is not that of its data.
    pub const INCORRECT_LENGTH: u8 = 0x40;
    /// The program is wrong.
    pub const PROGRAM_CHECK: u8 = 0x20;
    /// Its memory may not be used so.
    pub const PROTECTION_CHECK: u8 = 0x10;
}

block! {
    /// Subchannel information block, which STSCH stores and MSCH takes (15.1).
    Schib {
        /// Its path management.
        pmcw: Pmcw,
        /// Its status.
        scsw: Scsw,
        /// Where its measurements go.
        measurement_block: u64,
        /// For its own use.
        dependent: [u8; 4],
    }
}

block! {
    /// Interruption response block, which TSCH stores (16), without measurements.
    Irb {
        /// The status.
        scsw: Scsw,
        /// More of it: what was wrong with the program.
        extended_status: [u8; 20],
        /// Sense data.
        extended_control: [u8; 32],
    }
}

impl Pmcw {
    /// The class of its interruptions, 0 to 7.
    pub fn interruption_class(&self) -> u8 {
        // Three bits.
        ((self.flags & pmcw_flags::INTERRUPTION_CLASS) >> 11) as u8
    }
}

impl Schib {
    /// Whether MSCH takes it, which is refused with an operand exception otherwise.
    pub fn is_valid(&self) -> bool {
        /// Of the characteristics: those that have to be 0; extended measurements, which there are none of; that the
        /// address of measurements is its own.
        const INVALID: u32 = 0xff1f_fff8;
        const EXTENDED_MEASUREMENT: u32 = 0x2;
        const OWN_ADDRESS: u32 = 0x4;
        let characteristics = self.pmcw.characteristics;
        let aligned = characteristics & OWN_ADDRESS == 0 || self.measurement_block & 0x3f == 0;
        self.pmcw.flags & pmcw_flags::INVALID == 0
            && characteristics & (INVALID | EXTENDED_MEASUREMENT) == 0
            && aligned
    }
}

/// How instructions name a subchannel (14.1, subsystem-identification word).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubchannelId {
    /// Image of the channel subsystem; 0 if none is named.
    pub image: u8,
    /// Set of subchannels, 0 to 3.
    pub set: u8,
    /// Number within the set.
    pub number: u16,
}

impl SubchannelId {
    /// Reads the word; unset if it cannot be one, which is an operand exception.
    pub fn from_word(word: u32) -> Option<Self> {
        const ONE: u32 = 1 << 16;
        const NAMES_IMAGE: u32 = 1 << 19;
        let image = (word >> 24) as u8;
        let named = word & NAMES_IMAGE != 0 || image == 0;
        (word & ONE != 0 && named).then_some(Self {
            image,
            set: (word >> 17 & 3) as u8,
            number: word as u16,
        })
    }
}
