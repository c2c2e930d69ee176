//! What a virtual machine is made of.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use arch::CpuFeatures;
use arch::cmdline::{CommandLine, Console};
use devices::dev::DeviceSpec;

use crate::ap::Matrix;
use crate::board::Boot;
use crate::command::Command;
use crate::program::Program;

/// What a virtual machine is made of, and what for.
#[derive(Debug)]
pub struct Config {
    /// Who runs it, for what there is to tell.
    pub program: &'static Program,
    /// Number of vCPUs, at least 1.
    pub cpus: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Switches on top of the host's processor features, as [`CpuFeatures`] reads them.
    pub cpu_features: String,
    /// The kernel file.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Appended to the kernel command line.
    pub cmdline: String,
    /// Where the kernel's messages go: to our standard streams if there is no command, else to
    /// standard error.
    pub console: Console,
    /// Virtio devices, in the order of their slots. A console for the command, and random numbers if
    /// there are any devices, follow.
    pub devices: Vec<DeviceSpec>,
    /// The mediated device with the guest's crypto adapters.
    pub crypto: Option<Matrix>,
    /// What init is to run, if the guest has an init of ours.
    pub command: Option<Command>,
    /// Whence network interfaces come, and where they are said to be gone, while the command runs: a
    /// SOCK_SEQPACKET socket with one [`proto::Plug`] a message.
    pub plugs: Option<OwnedFd>,
    /// Print each exit to stderr.
    pub trace: bool,
}

impl Config {
    /// The switches of `cpu_features`.
    ///
    /// # Errors
    /// Names the feature that is not known.
    pub fn cpu_features(&self) -> Result<CpuFeatures> {
        let text = &self.cpu_features;
        CpuFeatures::parse(text).map_err(|e| anyhow!("CPU features {text}: {e}"))
    }

    /// The whole kernel command line.
    ///
    /// # Errors
    /// When it is too long, or not plain text.
    pub fn command_line(&self) -> Result<CommandLine> {
        let mut line = self.console.parameters().to_owned();
        // Otherwise Linux on a processor of AMD's looks for host bridges, 230 exits.
        let no_bus = if self.has_bus() { "" } else { "pci=off" };
        for part in [no_bus, &self.cmdline] {
            if !part.is_empty() {
                line = format!("{line} {part}");
            }
        }
        CommandLine::new(&line).context("kernel command line")
    }

    /// Whether the guest has virtio devices, which are on the PCI bus.
    pub(crate) fn has_bus(&self) -> bool {
        !self.devices.is_empty() || self.command.is_some() || self.console == Console::Virtio
    }

    /// Whether the guest reads our standard input.
    pub(crate) fn has_stdin(&self) -> bool {
        self.command.is_some() || self.console != Console::None
    }

    pub(crate) fn boot(&self) -> Result<Boot> {
        Ok(Boot {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            cmdline: self.command_line()?,
        })
    }
}
