//! The channel subsystem of an s390x machine (z/Architecture Principles of Operation, SA22-7832, chapters 13 to 17): up to
//! 256 subchannels, a device on each, reached by I/O instructions and channel programs. Plain code over guest memory, which
//! is tested on x86_64, too.
//!
//! ```text
//! vCPU ──instruction──▶ ChannelSubsystem ──▶ Subchannel ──program──▶ ChannelDevice
//!                             ▲                   └────status──▶ IoInterrupts
//! event loop ──SignalSubscriber (an eventfd of a device's)
//! ```

mod block;
mod ccw;
pub mod chsc;
mod instruction;
mod program;
mod reports;
mod schib;
mod signals;
mod subchannel;
mod subsystem;

use std::io;

pub use ccw::{Ccw, Format, Orb, SenseId, command, orb_control};
pub use instruction::{AccessRefused, Exception, Instruction, Operands};
pub use program::Data;
pub use schib::{
    Irb, Pmcw, Schib, Scsw, SubchannelId, characteristics, device_status, pmcw_flags, scsw_control,
    scsw_flags, subchannel_status,
};
pub use signals::{Place, SignalSubscriber};
pub use subsystem::{ChannelSubsystem, SubchannelsTaken};

/// The channel path of all virtual devices, 0, has this type, which no hardware has (as QEMU's).
pub const CHANNEL_PATH_TYPE: u8 = 0x32;

/// A device on a subchannel. Called by vCPU threads, and by the thread of [`SignalSubscriber`] in case of `signalled`, one
/// at a time; must not wait for anything.
pub trait ChannelDevice: Send {
    /// What it is.
    fn sense_id(&self) -> SenseId;

    /// Executes a command of a channel program, but for those that all devices have.
    ///
    /// # Errors
    /// When the command cannot be executed; how the guest hears of it.
    fn command(&mut self, command: u8, data: &Data<'_>) -> Result<Progress, Refusal>;

    /// One of the eventfds was signalled that the device has in its [`Place`], under this name.
    fn signalled(&mut self, name: u32) -> Reaction;

    /// The guest notifies a queue by hypercall (virtio 1.3, section 4.3.3.2) and the hypervisor does not know it. Returns
    /// whether there is such a queue.
    fn notified(&mut self, queue: u16) -> bool;

    /// The guest has disabled the subchannel.
    fn disabled(&mut self);

    /// The subchannel is gone, and nothing above is called any more: lets go of what it has bound.
    fn removed(&mut self);
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is executed, and had a use for so many bytes of its data.
    Done(usize),
    /// It is to be tried again after [`Reaction::Ready`].
    Later,
}

/// Why a command is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device rejects it: a unit check.
    Reject,
    /// Its data are not in guest memory: a program check.
    NotInMemory,
}

/// What a device wants after a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    None,
    /// A command that was put off can be executed.
    Ready,
    /// The guest is to hear of the device.
    Attention,
}

/// An I/O interruption, as the guest finds it in its lowcore (KVM: `KVM_S390_INT_IO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoInterrupt {
    /// Upper half of the subchannel's word: 1.
    pub subchannel_id: u16,
    /// Number of the subchannel.
    pub number: u16,
    /// The guest's own parameter.
    pub parameter: u32,
    /// The interruption-identification word, with the interruption class.
    pub word: u32,
}

/// Where the guest is interrupted. Called under locks; does not wait.
pub trait IoInterrupts: Send + Sync {
    /// A subchannel has a status for the guest to fetch.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn interrupt(&self, interrupt: IoInterrupt) -> io::Result<()>;

    /// Channel reports wait for the guest: a machine check (17, channel report pending).
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn channel_report(&self) -> io::Result<()>;
}

#[cfg(test)]
#[path = "block_test.rs"]
mod block_tests;
#[cfg(test)]
#[path = "css_fuzz.rs"]
mod fuzz;
#[cfg(test)]
#[path = "css_test.rs"]
mod tests;
