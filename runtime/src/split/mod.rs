//! One container's configuration becomes two: what the host does for the monitor, and what happens
//! in the VM.
//!
//! ```text
//!            ┌─ refuse: what no VM can do
//! config ────┼─ additions: mounts of runq's own options, in the container's own terms
//!            ├─ guest: mounts, process, limits, filter ──▶ VmSpec
//!            └─ host: root, process, mounts, devices, limits ──▶ config for runc
//! ```
//!
//! Nothing here touches the host: what has to be known of it comes in as [`Host`], and files to be
//! written go out as [`BundleFile`].

mod additions;
mod capabilities;
mod guest;
mod guest_mounts;
mod host;
mod host_mounts;
mod process;
mod refuse;
mod resources;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::options::{Given, Options};
use crate::spec;
use crate::vmspec::VmSpec;

/// Marks a configuration that has been split, with the version of runq that did.
pub const ANNOTATION: &str = "org.runq.version";

/// Name of the file that [`VmSpec`] is written to, in the bundle.
pub const VMSPEC: &str = "vmspec.json";

/// What has to be known of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The folder that becomes every container's root, with `proxy` in it; absolute.
    pub vm_folder: String,
    /// The commit that what is installed was built from, if that is known.
    pub commit: Option<String>,
    /// The container's bundle; absolute.
    pub bundle: String,
    /// Those devices that the monitor can use and the host has.
    pub devices: Vec<HostDevice>,
    /// Major number of the devices /dev/tapN, if there are any.
    pub macvtap_major: Option<u32>,
    /// Its processors that are online: as many vCPUs KVM recommends at most.
    pub cpus: u32,
    /// Most open files that a process can be allowed (/proc/sys/fs/nr_open).
    pub open_files: u64,
}

impl Host {
    /// Where a path of the container's configuration leads: relative ones begin at the bundle.
    fn resolve(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.bundle),
        }
    }
}

/// A character device of the host.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "major and minor number, as mknod(2) has them")]
pub struct HostDevice {
    /// Path, on the host and in the container.
    pub path: &'static str,
    pub major: u32,
    pub minor: u32,
}

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
    pub host: Value,
    /// For `proxy`.
    pub vm: VmSpec,
    /// Files that the host's configuration refers to, beside [`VMSPEC`].
    pub files: Vec<BundleFile>,
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

    let added = additions::add(config, &spec, &options, host);
    let spec = spec::read(&added.config).context("config.json")?;
    let sizes = resources::Sizes::of(&spec, &options, host)?;
    Ok(Split {
        vm: guest::vm_spec(&spec, &options, &sizes, host)?,
        host: host::rewrite(&added.config, &spec, &options, &sizes, host)?,
        files: added.files,
    })
}

/// A path of the container without double slashes, dots and a slash at its end; relative ones
/// begin at the root, as for runc.
fn clean(path: impl AsRef<Path>) -> String {
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
