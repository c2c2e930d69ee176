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
    /// What the guest sets: class, enabled, and how paths are used and measured.
    pub const CHANGEABLE: u16 = 0x38fc;
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
    /// The program is under way, at the subchannel and at the device.
    pub const ACTIVE: u16 = 0x00c0;
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
    /// What a program ends with.
    pub const ENDED: u16 = PRIMARY | SECONDARY | STATUS_PENDING;
}

/// Of [`Scsw::flags`]: those that come from the ORB's control, and those that come with a status.
pub mod scsw_flags {
    /// Key, suspension, format, prefetch and the like, where the ORB's control has them.
    pub const REQUESTED: u16 = 0xf8f8;
    /// Deferred condition code 3: none of the paths exists.
    pub const NO_PATH: u16 = 0x0300;
    /// The extended status says more.
    pub const EXTENDED_STATUS: u16 = 0x0400;
    /// There are sense data in the extended control.
    pub const EXTENDED_CONTROL: u16 = 0x0002;
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
    /// The program wanted the guest to know how far it is.
    pub const PROGRAM_CONTROLLED: u8 = 0x80;
    /// The command's count is not that of its data.
    pub const INCORRECT_LENGTH: u8 = 0x40;
    /// The program is wrong.
    pub const PROGRAM_CHECK: u8 = 0x20;
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

/// Of [`Pmcw::characteristics`].
pub mod characteristics {
    /// Sense data come with the status that tells of them.
    pub const CONCURRENT_SENSE: u32 = 0x1;
    /// What the guest sets: that, and the format of measurements.
    pub const CHANGEABLE: u32 = 0x5;
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
    /// Of the machine's only image and set.
    pub fn of(number: u16) -> Self {
        Self {
            image: 0,
            set: 0,
            number,
        }
    }

    /// Whether there may be such a subchannel: in the image 0xfe of virtual devices, which is the one without a name, too.
    pub fn is_ours(self) -> bool {
        matches!(self.image, 0 | 0xfe) && self.set == 0
    }

    /// As the guest writes it, in the image without a name.
    pub fn word(self) -> u32 {
        1 << 16 | u32::from(self.set) << 17 | u32::from(self.number)
    }

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
