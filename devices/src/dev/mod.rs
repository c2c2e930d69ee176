//! The list of all virtio devices. A new one is a module, a variant and its arm here; all else about
//! it is in the module.

pub mod blk;
pub mod console;
pub mod fs;
pub mod net;
pub mod p9;
pub mod rng;
pub mod share;
pub mod vsock;

use std::io;

use crate::device::VirtioDevice;

/// What a device is to be.
#[derive(Debug)]
pub enum DeviceSpec {
    /// A disk.
    Blk(blk::Config),
    /// A console with named ports.
    Console(console::Config),
    /// Random numbers.
    Rng(rng::Config),
    /// A shared directory.
    Fs(share::Config),
    /// A shared directory, for a guest that wants 9P.
    P9(p9::Config),
    /// A network interface.
    Net(net::Config),
    /// Stream connections between programs of the host and of the guest.
    Vsock(vsock::Config),
}

impl DeviceSpec {
    /// What is shared, if anything is.
    pub fn share_mut(&mut self) -> Option<&mut share::Config> {
        match self {
            Self::Fs(config) => Some(config),
            Self::P9(config) => Some(&mut config.share),
            _ => None,
        }
    }

    /// Makes the device, for [`crate::event_loop::add_device`]. Its own threads inherit
    /// privileges and filters from the caller's, so that this is to be called before those are
    /// given up.
    ///
    /// # Errors
    /// When the configuration does not work; names the object.
    pub fn build(self) -> io::Result<Box<dyn VirtioDevice>> {
        Ok(match self {
            Self::Blk(config) => blk::new(config)?,
            Self::Console(config) => Box::new(console::Console::new(config)?),
            Self::Rng(config) => Box::new(rng::Rng::new(config)?),
            Self::Fs(config) => Box::new(fs::new(config)?),
            Self::P9(config) => Box::new(p9::new(config)?),
            Self::Net(config) => net::new(config)?,
            Self::Vsock(config) => vsock::new(config)?,
        })
    }
}
