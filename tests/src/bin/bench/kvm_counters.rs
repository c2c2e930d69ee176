//! KVM's counters of one virtual machine, in debugfs: all exits, whoever handles them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const DIRECTORY: &str = "/sys/kernel/debug/kvm";

/// Exits of all vCPUs, by KVM's own coarse reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvmCounters {
    /// All of them.
    pub(crate) exits: u64,
    /// IN and OUT.
    pub(crate) io: u64,
    /// Addresses that are not memory.
    pub(crate) mmio: u64,
}

impl KvmCounters {
    /// The counters of the virtual machine that the process `pid` has.
    ///
    /// # Errors
    /// When it has none, or debugfs is not mounted.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let vm = directory(pid)?;
        let counter = |name: &str| -> Result<u64> {
            let path = vm.join(name);
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            text.trim()
                .parse()
                .with_context(|| format!("{}: {text}", path.display()))
        };
        let counters = Self {
            exits: counter("exits")?,
            io: counter("io_exits")?,
            mmio: counter("mmio_exits")?,
        };
        ensure!(counters.exits > 0, "{}: the guest never ran", vm.display());
        Ok(counters)
    }
}

/// Its name is the process's number and that of a file descriptor.
fn directory(pid: u32) -> Result<PathBuf> {
    let prefix = format!("{pid}-");
    let entries = fs::read_dir(Path::new(DIRECTORY))
        .with_context(|| format!("{DIRECTORY}: mount -t debugfs debugfs /sys/kernel/debug"))?;
    for entry in entries {
        let entry = entry.context(DIRECTORY)?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("{DIRECTORY} has no virtual machine of process {pid}")
}
