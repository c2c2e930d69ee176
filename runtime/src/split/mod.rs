//! One container's configuration becomes two: what runc does on the host for the monitor, and what
//! happens in the VM.
//!
//! ```text
//!            ┌─ refuse: what no VM can do
//! config ────┼─ additions: mounts of runq's own options, in the container's own terms
//!            ├─ disks: mounts and devices that are disks of the VM, taken out
//!            ├─ guest: mounts, process, limits, filter ──▶ VmSpec
//!            └─ runc: root, process, mounts, devices, limits ──▶ config for runc
//! ```
//!
//! Nothing here touches the host: what has to be known of it comes in as a [`Host`], and files to be
//! written go out as [`BundleFile`].

mod additions;
mod capabilities;
pub(crate) mod disks;
mod guest;
mod guest_mounts;
mod image;
pub(crate) mod limits;
pub(crate) mod process;
mod refuse;
pub(crate) mod resources;
mod runc;
mod runc_mounts;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::certs::CLIENT;
use crate::host::Host;
use crate::options::{Given, Options};
use crate::spec;
use crate::vmspec::VmSpec;

pub use image::MountPoint;

/// Marks a configuration that has been split, with the version of runq that did.
pub const ANNOTATION: &str = "org.runq.version";

/// Name of the file that [`VmSpec`] is written to, in the bundle.
pub const VMSPEC: &str = "vmspec.json";

/// Name of a file in the bundle that is empty as long as no process was killed for want of memory.
pub const KILLS: &str = "kills";

/// Name of a FIFO in the bundle, by which `runq start` hears of the start.
pub const STARTED: &str = "started";

/// A file to write into the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFile {
    /// Its name there.
    pub name: &'static str,
    /// What is in it.
    pub contents: String,
    /// Permissions.
    pub mode: u32,
    /// User and group that own it.
    pub owner: (u32, u32),
}

/// The two configurations of a container.
#[derive(Clone, Debug)]
pub struct Split {
    /// For runc.
    pub runc: Value,
    /// For `proxy`.
    pub vm: VmSpec,
    /// Files beside [`VMSPEC`]: those that runc's configuration refers to, and what `runq exec` needs.
    pub files: Vec<BundleFile>,
    /// What has to be in the image, which the monitor cannot write to.
    pub mount_points: Vec<MountPoint>,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Splits the configuration `config`, with what the command line gives.
///
/// # Errors
/// One line that names the option, variable or field, and what to do.
pub fn split(config: &Value, given: &Given, host: &Host) -> Result<Split> {
    let spec = spec::read(config).context("config.json")?;
    let process = spec::process(&spec).context("config.json")?;
    let options = Options::read(given, process.env().as_deref().unwrap_or_default())?;
    refuse::check(&spec)?;

    let mut added = additions::add(config, &spec, &options, host);
    let spec = spec::read(&added.config).context("config.json")?;
    let disks = disks::take(&mut added.config, &spec, host)?;
    disks::check_root(options.root_disk.as_ref(), &disks)?;
    let spec = spec::read(&added.config).context("config.json")?;
    let sizes = resources::Sizes::of(&spec, &options, host)?;
    let vm = guest::vm_spec(&spec, &options, &sizes, host, &disks)?;
    let mut runc = runc::rewrite(&added.config, &spec, &options, &sizes, host, &disks)?;
    let mount_points = image::mount_points(&spec, &vm.start);
    if mount_points.is_some() {
        runc_mounts::make_root_read_only(&mut runc);
    }
    let mut split = Split {
        vm,
        runc,
        files: added.files,
        mount_points: mount_points.unwrap_or_default(),
        warnings: Vec::new(),
    };
    match &host.certificates {
        _ if !options.exec => {}
        Ok(certificates) => split.files.push(BundleFile {
            name: CLIENT,
            contents: serde_json::to_string(&certificates.client()).context(CLIENT)?,
            mode: 0o400,
            owner: (0, 0),
        }),
        Err(error) => split.warnings.push(format!(
            "no docker exec: {error}: `runq certs` makes certificates"
        )),
    }
    Ok(split)
}

/// A path of the container without double slashes, dots and a slash at its end; relative ones
/// begin at the root, as for runc.
pub(crate) fn clean(path: impl AsRef<Path>) -> String {
    // Paths of a configuration are JSON's strings: nothing is lost.
    let path = path.as_ref().to_string_lossy();
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [
            ("/dev/", "/dev"),
            ("//a/./b//c/../d", "/a/b/d"),
            ("/../..", "/"),
            ("data", "/data"),
            ("", "/"),
        ] {
            assert_eq!(clean(path), cleaned);
        }
    }
}
