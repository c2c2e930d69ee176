//! The channel subsystem's blocks in guest memory (Principles of Operation, chapters 13 to 17), and what it tells of
//! itself.

mod block;
mod ccw;
pub mod chsc;
mod subchannel;

pub use ccw::{Ccw, Format, Orb, SenseId, command, orb_control};
pub use subchannel::{
    Irb, Pmcw, Schib, Scsw, SubchannelId, device_status, pmcw_flags, scsw_control,
    subchannel_status,
};

/// The channel path of all virtual devices, 0, has this type, which no hardware has (as QEMU's).
pub const CHANNEL_PATH_TYPE: u8 = 0x32;

#[cfg(test)]
mod tests;
