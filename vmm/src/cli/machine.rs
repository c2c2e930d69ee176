//! From the options of the command line to a machine.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use vmm::command::{Command, Forwarded};
use vmm::config::Config;
use vmm::program::RUNQ_VMM;
use vmm::share::Share;
use vmm::{Console, CpuFeatures, DeviceSpec};

use super::options::{ConsoleKind, MODULES_TAG, Options, ROOT_TAG};

/// Where an installed runq keeps what its guests boot.
const INSTALLED_KERNEL: &str = "/var/lib/runq/vm/kernel";
const INSTALLED_INITRD: &str = "/var/lib/runq/vm/initrd";
const DEFAULT_MEMORY: u64 = 256 << 20;

impl Options {
    /// The machine that is asked for.
    pub(super) fn config(&self) -> Config {
        let command = self
            .start()
            .map(|start| Command::new(start, Forwarded::Usual));
        let installed = command.as_ref().map(|_| PathBuf::from(INSTALLED_INITRD));
        Config {
            program: &RUNQ_VMM,
            cpus: self.cpus.unwrap_or(1),
            memory: self.mem.map_or(DEFAULT_MEMORY, |size| size.0),
            cpu_features: self.cpu_features().to_owned(),
            kernel: self
                .kernel
                .clone()
                .unwrap_or_else(|| INSTALLED_KERNEL.into()),
            initrd: self.initrd.clone().or(installed),
            cmdline: self.cmdline.clone().unwrap_or_default(),
            console: match self.console {
                Some(ConsoleKind::Serial) => Console::Serial,
                Some(ConsoleKind::Virtio) => Console::Virtio,
                Some(ConsoleKind::None) => Console::None,
                None if command.is_some() => Console::None,
                None => Console::Serial,
            },
            devices: self.shares(),
            command,
            crypto: None,
            plugs: None,
            trace: self.trace,
        }
    }

    /// Finds what is wrong with the machine whatever the host is like.
    ///
    /// # Errors
    /// Names the option, its value and what is allowed.
    pub(super) fn check_config(&self) -> Result<()> {
        let text = self.cpu_features();
        CpuFeatures::parse(text).map_err(|e| anyhow!("--cpu {text}: {e}"))?;
        self.config().command_line().context("--cmdline")?;
        Ok(())
    }

    fn cpu_features(&self) -> &str {
        self.cpu.as_deref().unwrap_or("host")
    }

    fn shares(&self) -> Vec<DeviceSpec> {
        let root = self
            .rootfs
            .iter()
            .map(|directory| (ROOT_TAG, directory, false));
        let more = self
            .shares
            .iter()
            .map(|s| (s.tag.as_str(), &s.directory, s.read_only));
        let modules = self
            .modules
            .iter()
            .map(|directory| (MODULES_TAG, directory, true));
        root.chain(modules)
            .chain(more)
            .map(|(tag, directory, read_only)| {
                Share {
                    tag: tag.to_owned(),
                    directory: directory.clone(),
                    read_only,
                    without: Vec::new(),
                    p9: self.p9_cache,
                }
                .device()
            })
            .collect()
    }
}
