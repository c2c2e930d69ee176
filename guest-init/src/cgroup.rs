//! The limit of the command's processes: a control group of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use crate::mounts::{NO_SUID_DEV_EXEC, mount_at};

/// Where sysfs has a place for the hierarchy.
const HIERARCHY: &str = "/sys/fs/cgroup";
/// The command's group in it.
const GROUP: &str = "/sys/fs/cgroup/command";

/// Moves this process into a group of at most so many processes, which is the root of what it can see
/// of the hierarchy. It can use all controllers there that the kernel has.
///
/// Call it after [`mount`]. Without a limit the command has no need of a group, which costs the start
/// of a guest about as much as all its mounts.
pub(crate) fn limit_pids(limit: u64) -> Result<()> {
    let controllers = read(HIERARCHY, "cgroup.controllers")?;
    write(HIERARCHY, "cgroup.subtree_control", &enable(&controllers))?;
    fs::create_dir(GROUP).with_context(|| format!("create {GROUP}"))?;
    write(GROUP, "pids.max", &limit.to_string())?;
    join()?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")
}

/// Mounts the hierarchy where init, the command before it has its own root, and the agent see it. It
/// stays: if the container's mount of it, which is read-only, were the first, all would be.
pub(crate) fn mount() -> Result<()> {
    mount_at(HIERARCHY, "cgroup2", "cgroup2", NO_SUID_DEV_EXEC, "")
        .context("a limit of processes needs control groups")
}

/// Moves this process into the command's group, which is there if processes are limited.
pub(crate) fn join() -> Result<()> {
    // 0 is the process that writes it.
    write(GROUP, "cgroup.procs", "0")
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
    // Without O_CREAT: for a file that is missing, the kernel would refuse that with another error.
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
