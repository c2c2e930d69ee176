//! The control groups of a container: a relay counts as a part of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where all hierarchies are mounted.
const MOUNTS: &str = "/sys/fs/cgroup";
/// The file to which a process is written that is to move.
const PROCESSES: &str = "cgroup.procs";

/// Moves this process into the control groups of another, of each hierarchy that is mounted.
///
/// # Errors
/// Names the file that cannot be read or written.
pub fn join(pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/cgroup");
    let groups = fs::read_to_string(&path).with_context(|| path.clone())?;
    if fs::read_to_string("/proc/self/cgroup").is_ok_and(|own| own == groups) {
        return Ok(());
    }
    let files = files(&groups, Path::new(MOUNTS));
    ensure!(
        !files.is_empty(),
        "{path}: none of its control groups is below {MOUNTS}"
    );
    for file in files {
        // 0 is this process (cgroups(7)).
        move_to(&file).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn move_to(file: &Path) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| io::Write::write_all(&mut file, b"0"))
}

/// The files to write to, by /proc/PID/cgroup: `ID:CONTROLLERS:PATH` a line, without controllers for
/// version 2 (cgroups(7)).
fn files(groups: &str, mounts: &Path) -> Vec<PathBuf> {
    let file = |line: &str| {
        let (_, group) = line.split_once(':')?;
        let (controllers, path) = group.split_once(':')?;
        let group = path.trim_start_matches('/');
        // Version 2 is alone, or beside the hierarchies of version 1.
        let folders = match controllers.strip_prefix("name=").unwrap_or(controllers) {
            "" => vec![mounts.join("unified"), mounts.to_owned()],
            name => vec![mounts.join(name)],
        };
        let files = folders
            .into_iter()
            .map(|folder| folder.join(group).join(PROCESSES));
        files.into_iter().find(|file| file.exists())
    };
    groups.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_that_is_mounted_has_a_file() {
        let mounts = tempfile::tempdir().unwrap();
        let make = |folder: &str| {
            let folder = mounts.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(PROCESSES), "").unwrap();
            folder.join(PROCESSES)
        };
        let found = |groups| files(groups, mounts.path());
        let alone = make("docker/ab");
        assert_eq!(found("0::/docker/ab\n"), [alone]);
        let cpu = make("cpu,cpuacct/docker/x:y");
        let systemd = make("systemd/docker/x:y");
        let unified = make("unified/docker/x:y");
        assert_eq!(
            found(
                "12:cpu,cpuacct:/docker/x:y\n3:none:/docker/x:y\n1:name=systemd:/docker/x:y\n\
                 0::/docker/x:y\n"
            ),
            [cpu, systemd, unified]
        );
        assert!(found("no group\n\n0::/elsewhere").is_empty());
    }

    #[test]
    fn a_process_moves_by_a_zero() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(PROCESSES);
        assert!(move_to(&file).is_err());
        fs::write(&file, "").unwrap();
        move_to(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "0");
    }
}
