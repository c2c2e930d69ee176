//! All devices there are, by their configuration.

pub mod console;
pub mod fs;
pub mod rng;

use std::io;

use crate::device::{DeviceType, VirtioDevice};

/// What a device is to be. A new device is one module, and a variant with its arms here.
#[derive(Debug)]
pub enum DeviceSpec {
    /// A console with named ports.
    Console(console::Config),
    /// Random numbers.
    Rng(rng::Config),
    /// A shared directory.
    Fs(fs::Config),
}

impl DeviceSpec {
    /// What the device is.
    pub fn device_type(&self) -> DeviceType {
        match self {
            Self::Console(_) => DeviceType::Console,
            Self::Rng(_) => DeviceType::Rng,
            Self::Fs(_) => DeviceType::Fs,
        }
    }

    /// Makes the device, for [`crate::event_loop::EventLoop::add_device`]. Its own threads inherit
    /// privileges and filters from the caller's, so that this is to be called before those are
    /// given up.
    ///
    /// # Errors
    /// When the configuration does not work; names the object.
    pub fn build(self) -> io::Result<Box<dyn VirtioDevice>> {
        Ok(match self {
            Self::Console(config) => Box::new(console::Console::new(config)?),
            Self::Rng(config) => Box::new(rng::Rng::new(config)?),
            Self::Fs(config) => Box::new(fs::Fs::new(config)?),
        })
    }
}
