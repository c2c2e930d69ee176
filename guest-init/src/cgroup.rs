//! What the command and its children may use together: a control group of their own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use libc::pid_t;
use nix::sched::{CloneFlags, unshare};

use crate::mounts::{NO_SUID_DEV_EXEC, mount_at};

/// Where sysfs has a place for the hierarchy.
const HIERARCHY: &str = "/sys/fs/cgroup";
/// The command's group in it.
const GROUP: &str = "/sys/fs/cgroup/command";

/// Moves this process into a group with these limits, which is the root of what it can see of the
/// hierarchy. It can use all controllers there that the kernel has. Call it after [`mount`].
pub(crate) fn enter(limits: &[(String, String)]) -> Result<()> {
    let controllers = read(HIERARCHY, "cgroup.controllers")?;
    write(HIERARCHY, "cgroup.subtree_control", &enable(&controllers))?;
    fs::create_dir(GROUP).with_context(|| format!("create {GROUP}"))?;
    set(limits)?;
    join_group(GROUP)?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")
}

/// Sets limits of the command's group: files there, and what to write to them.
pub(crate) fn set(limits: &[(String, String)]) -> Result<()> {
    limits.iter().try_for_each(|(name, value)| {
        ensure!(is_limit(name), "{name}: no limit of a control group");
        write(GROUP, name, value)
    })
}

/// Whether a file is a controller's (`memory.max`), and not one by which the group itself is managed (`cgroup.procs`).
fn is_limit(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
    !name.starts_with(['.', '_']) && !name.starts_with("cgroup.") && name.chars().all(is_plain)
}

/// Mounts the hierarchy where init, the command before it has its own root, and the agent see it. It
/// stays: if the container's mount of it, which is read-only, were the first, all would be.
pub(crate) fn mount() -> Result<()> {
    mount_at(HIERARCHY, "cgroup2", "cgroup2", NO_SUID_DEV_EXEC, "")
        .context("the limits of a container need control groups")
}

/// Moves this process into the group of the command, which has this number. The command may have made groups in its own and
/// moved to one of them, as systemd does: then there can be no processes beside those (cgroup-v2.rst, No Internal
/// Process Constraint).
pub(crate) fn join(command: pid_t) -> Result<()> {
    let is_busy = |error: &Error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == ErrorKind::ResourceBusy)
    };
    match join_group(GROUP) {
        Err(error) if is_busy(&error) => {
            let path = format!("/proc/{command}/cgroup");
            let groups = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let group = group(&groups).with_context(|| format!("{path}: no group"))?;
            join_group(&format!("{HIERARCHY}{group}"))
        }
        joined => joined,
    }
}

/// The group of version 2 in /proc/PID/cgroup (cgroups(7)).
fn group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

fn join_group(group: &str) -> Result<()> {
    // 0 is the process that writes it.
    write(group, "cgroup.procs", "0")
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
    fn a_limit_is_a_file_of_a_controller() {
        for name in ["memory.max", "memory.swap.max", "cpu.max", "pids.max"] {
            assert!(is_limit(name), "{name}");
        }
        for name in ["cgroup.procs", "../pids.max", "..", ".", "/a", "a/b"] {
            assert!(!is_limit(name), "{name}");
            let limit = (name.to_owned(), "1".to_owned());
            let error = set(&[limit]).unwrap_err().to_string();
            assert_eq!(error, format!("{name}: no limit of a control group"));
        }
    }

    #[test]
    fn a_process_is_in_one_group_of_version_2() {
        let groups = "1:name=systemd:/x\n0::/command/init.scope\n";
        assert_eq!(group(groups), Some("/command/init.scope"));
        assert_eq!(group("1:cpu:/\n"), None);
    }

    #[test]
    fn failures_name_the_file() {
        let error = write("/proc/no/such", "pids.max", "7").unwrap_err();
        assert!(format!("{error:#}").contains("\"7\" to /proc/no/such/pids.max"));
    }
}
