//! The messages between the host and the guest's init.
//!
//! They travel over the virtio port [`CONTROL_PORT`], one message a frame ([`send`], [`recv`], [`Decoder`]):
//!
//! 1. init: [`ToHost::Hello`] as soon as it has opened the port;
//! 2. host: [`ToGuest::Start`], what to mount and to run;
//! 3. init: [`ToHost::Started`], then [`ToHost::Exited`]; or [`ToHost::Failed`] instead of either;
//! 4. host, at any time after `Start`: [`ToGuest::Signal`], [`ToGuest::Resize`], [`ToGuest::Plug`],
//!    [`ToGuest::DropCaches`]; init answers the removal of an interface by [`ToHost::Unplugged`], and the last one by
//!    [`ToHost::CachesDropped`];
//! 5. init, after `Started` and before the end: [`ToHost::OutOfMemory`].
//!
//! The command's standard streams have ports of their own, which carry nothing but its bytes. To
//! Linux, a port whose host side is not open is one that has ended, when it reads, and one that is
//! full, when it writes. So the host
//! - opens its side of each port (VIRTIO_CONSOLE_PORT_OPEN, virtio 1.3, 5.3.6.2) before it names it;
//! - ends stdin by closing its side, after the last byte; sends nothing before the guest has opened
//!   its own (Linux drops it), and nothing after the guest has closed it: the command reads no more;
//! - takes stdout and stderr as long as the guest has them open, even if nobody wants the bytes:
//!   init reports the command's end when they are through.
//!
//! The encoding is postcard's, which describes nothing about itself: every change of a type below
//! needs a new [`VERSION`]. Each side's first message begins with the version, and decoding checks
//! it before anything else, so that two sides that differ say so ([`Error::Version`]).
#![forbid(unsafe_code)]

pub mod dns;
pub mod exec;
mod frame;
mod network;
mod plug;
mod start;

pub use frame::{Decoder, Error, MAX_FRAME, Message, encode, recv, send};
pub use network::{Address, Interface, MacAddress, PacketRule, Resolver, Route};
pub use plug::Plug;
pub use start::{
    AccessTimes, Capabilities, Device, Disk, DiskMount, FileSystem, FilterInstruction, Mount,
    MountFlags, Mountable, Process, Resource, Rlimit, Root, RootDisk, Start, User, WindowSize,
};

use serde::{Deserialize, Serialize};

/// Version of all messages. Host and guest must agree exactly: they are built together.
pub const VERSION: u32 = 11;

/// Name of the virtio port that carries the messages, both ways.
pub const CONTROL_PORT: &str = "runq.control";
/// Name of the virtio port for the command's standard input (or its terminal's), host to guest.
pub const STDIN_PORT: &str = "runq.stdin";
/// Name of the virtio port for the command's standard output (or its terminal's), guest to host.
pub const STDOUT_PORT: &str = "runq.stdout";
/// Name of the virtio port for the command's standard error, guest to host; unused with a terminal.
pub const STDERR_PORT: &str = "runq.stderr";

/// A message from the host to init.
///
/// The first variant opens the conversation and begins with the version: decoding relies on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// What to mount and to run. Comes once, first.
    Start {
        /// The host's [`VERSION`].
        version: u32,
        /// The orders.
        start: Box<Start>,
    },
    /// Send a signal to the command.
    ///
    /// The command is PID 1 of its PID namespace: the kernel drops a signal for which it has no
    /// handler, except SIGKILL and SIGSTOP.
    Signal {
        /// Number of the signal in the guest (1 to 64).
        number: i32,
    },
    /// The terminal's window has another size. Ignored without a terminal.
    Resize(WindowSize),
    /// The network changes. An interface's device is on the bus before it is named here, and stays
    /// until [`ToHost::Unplugged`] says that it is not used any more.
    Plug(Plug),
    /// Let go of all files of shares that are known but not used. Comes again only after the answer.
    DropCaches,
}

/// A message from init to the host.
///
/// The first variant opens the conversation and begins with the version: decoding relies on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// Init is ready for [`ToGuest::Start`].
    Hello {
        /// The guest's [`VERSION`].
        version: u32,
    },
    /// So much of the image is on the root disk, which is being filled for the first time.
    Copied {
        /// Files, links, devices and directories.
        files: u64,
        /// Of the files' data.
        bytes: u64,
    },
    /// The command runs.
    Started {
        /// Its process number as init sees it.
        pid: u32,
    },
    /// The interface with this address, whose removal was ordered, is not used any more.
    Unplugged(MacAddress),
    /// The kernel has forgotten the files that nobody uses.
    CachesDropped,
    /// The kernel has killed a process of the command's for want of memory.
    OutOfMemory {
        /// Its name, of its own choice.
        name: String,
    },
    /// The command has ended, its output is written to the ports, and they are closed; what it has written to disks and
    /// shares is there, and file systems are unmounted where nothing holds them. The guest powers off next.
    Exited {
        /// Its exit status, or 128 + N if signal N ended it.
        code: u8,
    },
    /// The command could not be started. The guest powers off next.
    Failed {
        /// 127: the command is not there; 126: it is, but cannot be executed; 1: all else.
        code: u8,
        /// One line that names the object and the reason.
        message: String,
    },
}

impl ToGuest {
    /// The opening message of the host, with this crate's version.
    pub fn start(start: Start) -> Self {
        Self::Start {
            version: VERSION,
            start: Box::new(start),
        }
    }
}

impl ToHost {
    /// The opening message of init, with this crate's version.
    pub fn hello() -> Self {
        Self::Hello { version: VERSION }
    }
}
