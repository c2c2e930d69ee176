//! The Debian image: root file system, kernel, initrd. Built by the scripts in `tests/host/scripts`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache;

/// The Debian release in the test host.
pub const SUITE: &str = "trixie";

const ROOT: &str = include_str!("../scripts/root.sh");
const IMAGE: &str = include_str!("../scripts/image.sh");
const INITRD_INIT: &str = include_str!("../scripts/initrd-init");
const PACKAGES: &str = include_str!("../scripts/packages");

/// The names of the files in an image.
pub mod files {
    /// The kernel.
    pub const KERNEL: &str = "vmlinuz";
    /// The initrd, to which a state adds our own files.
    pub const INITRD: &str = "initrd";
    /// The disk, raw.
    pub const DISK: &str = "root.ext4";
    /// A folder: QEMU with all that it loads.
    pub const QEMU: &str = "qemu";
    /// Lines of a name and a version.
    pub const VERSIONS: &str = "versions";
}

/// What names an image.
#[must_use]
pub fn key() -> String {
    cache::key(&[SUITE, ROOT, IMAGE, INITRD_INIT, PACKAGES])
}

/// The folder of the image, built if need be.
///
/// # Errors
/// A script failed: the message names its log.
pub fn get() -> Result<PathBuf> {
    cache::get("image", &key(), build)
}

fn build(dir: &Path) -> Result<()> {
    let packages: Vec<&str> = PACKAGES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let init = dir.join("initrd-init");
    fs::write(&init, INITRD_INIT)?;
    let dir_arg = dir.to_string_lossy();
    eprintln!("testhost: building the Debian {SUITE} image");
    script(dir, "root", ROOT, &[&dir_arg, SUITE, &packages.join(",")])?;
    script(dir, "image", IMAGE, &[&dir_arg, &init.to_string_lossy()])
}

/// Runs one of our scripts with its output in `DIR/NAME.log`.
///
/// # Errors
/// It failed: the message names its log.
pub(crate) fn script(dir: &Path, name: &str, text: &str, args: &[&str]) -> Result<()> {
    let log = dir.join(format!("{name}.log"));
    let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let status = Command::new("bash")
        .args(["-c", text, name])
        .args(args)
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("start bash")?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let last = text.lines().last().unwrap_or("no output");
        bail!(
            "tests/host/scripts/{name}.sh failed ({last}); see {}; tests/packages installs what it needs",
            log.display()
        );
    }
    Ok(())
}
