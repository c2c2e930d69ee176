//! The files that a guest boots, into its memory.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arch::kernel::{Entry, Kernel};
use arch::{Machine, initrd};
use devices::Memory;
use tracing::debug;

use super::Boot;

/// Loads the kernel, and the initrd if there is one, and describes the machine to them. Returns where the guest begins.
pub(super) fn load(memory: &Memory, boot: &Boot, machine: &Machine) -> Result<Entry> {
    let kernel = load_kernel(memory, &boot.kernel)
        .with_context(|| format!("kernel {}", boot.kernel.display()))?;
    let load_initrd = |path: &Path| {
        open(path)
            .and_then(|file| Ok(initrd::load(memory, &file, kernel.initrd_room(memory))?))
            .with_context(|| format!("initrd {}", path.display()))
    };
    let initrd = boot.initrd.as_deref().map(load_initrd).transpose()?;
    debug!(entry = ?kernel.entry, ?initrd, cmdline = boot.cmdline.as_str(), "guest loaded");
    arch::boot::write(memory, &kernel, initrd.as_ref(), &boot.cmdline, machine)?;
    Ok(kernel.entry)
}

fn load_kernel(memory: &Memory, path: &Path) -> Result<Kernel> {
    let file = open(path)?;
    let kernel = Kernel::read(&file)?;
    kernel.load(memory, &file)?;
    Ok(kernel)
}

/// A regular file: a directory opens as well, but cannot be read.
fn open(path: &Path) -> Result<File> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        bail!("not a regular file");
    }
    Ok(file)
}
