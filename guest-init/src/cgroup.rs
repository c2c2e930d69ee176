//! The command's control group: its root of the hierarchy, and the limit of its processes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::mounts::{NO_SUID_DEV_EXEC, mount_at};

/// Where sysfs has a place for the hierarchy.
const HIERARCHY: &str = "/sys/fs/cgroup";
/// The command's group in it.
const GROUP: &str = "/sys/fs/cgroup/command";

/// Moves this process into a group of its own, which is the root of all that it can see of the
/// hierarchy. It can use all controllers there that the kernel has.
///
/// Call it in the new mount namespace. A kernel without cgroup v2 is fine if there is no limit.
pub(crate) fn enter(pids_limit: Option<u64>) -> Result<()> {
    match mount_at(HIERARCHY, "cgroup2", "cgroup2", NO_SUID_DEV_EXEC, "") {
        Err(error) if pids_limit.is_none() && is_unknown(&error) => return Ok(()),
        mounted => mounted.context("control groups")?,
    }
    write(
        HIERARCHY,
        "cgroup.subtree_control",
        &enable(&read(HIERARCHY, "cgroup.controllers")?),
    )?;
    fs::create_dir(GROUP).with_context(|| format!("create {GROUP}"))?;
    if let Some(limit) = pids_limit {
        write(GROUP, "pids.max", &limit.to_string())?;
    }
    // 0 is the process that writes it.
    write(GROUP, "cgroup.procs", "0")?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")
}

/// Whether the kernel does not know the file system, or has no place for it.
fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Errno::ENODEV) || !Path::new(HIERARCHY).exists()
}

/// What to write to enable these controllers.
fn enable(controllers: &str) -> String {
    let enabled: Vec<_> = controllers
        .split_ascii_whitespace()
        .map(|controller| format!("+{controller}"))
        .collect();
    enabled.join(" ")
}

fn read(group: &str, name: &str) -> Result<String> {
    let path = Path::new(group).join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn write(group: &str, name: &str, text: &str) -> Result<()> {
    let path = Path::new(group).join(name);
    // Without creating it, as the kernel refuses that in other words than that it is not there.
    let file = File::options().write(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {text:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_controllers_are_enabled_in_one_line() {
        assert_eq!(enable("cpu memory pids\n"), "+cpu +memory +pids");
        assert_eq!(enable("\n"), "");
    }

    #[test]
    fn failures_name_the_file() {
        let error = write("/proc/no/such", "pids.max", "7").unwrap_err();
        assert!(format!("{error:#}").contains("\"7\" to /proc/no/such/pids.max"));
    }
}
