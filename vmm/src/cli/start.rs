//! What the guest's init is told to mount and to run.

use proto::{FileSystem, Mount, MountFlags, Mountable, Process, Root, Start};
use vmm::command::terminal;
use vmm::share::{self, P9Cache};

use super::options::{MODULES_TAG, Options, ROOT_TAG};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Options {
    /// The orders; none if the guest runs no command.
    pub(super) fn start(&self) -> Option<Start> {
        let mut start = match &self.start {
            Some(start) => start.as_ref().clone(),
            None if self.command.is_empty() => return None,
            None => start(self.command.clone(), self.p9_cache),
        };
        if self.modules.is_some() {
            start.modules.get_or_insert_with(|| modules(self.p9_cache));
        }
        start.crypto_adapters |= self.ap.is_some();
        Some(start)
    }
}

/// The share with the kernel's modules.
fn modules(p9: Option<P9Cache>) -> Mountable {
    Mountable::FileSystem(FileSystem {
        flags: MountFlags::ALL,
        ..share::file_system(MODULES_TAG, p9)
    })
}

/// A command in the share that is its root, with our terminal if we have one.
fn start(command: Vec<String>, p9: Option<P9Cache>) -> Start {
    let term = std::env::var("TERM").map(|term| format!("TERM={term}"));
    let size = terminal::window_size();
    let mut env = vec![DEFAULT_PATH.to_owned()];
    env.extend(size.and(term.ok()));
    Start {
        root: Root {
            file_system: share::file_system(ROOT_TAG, p9),
            ..Default::default()
        },
        mounts: standard_mounts(),
        hostname: Some("runq".to_owned()),
        process: Process {
            args: command,
            env,
            cwd: "/".to_owned(),
            terminal: size,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// The file systems that programs expect beside those of every command. The flags and the size of
/// /dev/shm are Docker's defaults; but nothing is read-only, as the command has all rights.
fn standard_mounts() -> Vec<Mount> {
    vec![
        standard("/sys", "sysfs", "", Mountable::FileSystem),
        standard("/sys/fs/cgroup", "cgroup2", "", Mountable::Optional),
        standard(
            "/dev/shm",
            "tmpfs",
            "mode=1777,size=64m",
            Mountable::FileSystem,
        ),
        standard("/dev/mqueue", "mqueue", "", Mountable::Optional),
    ]
}

fn standard(target: &str, fstype: &str, data: &str, what: fn(FileSystem) -> Mountable) -> Mount {
    Mount {
        target: target.to_owned(),
        what: what(FileSystem {
            fstype: fstype.to_owned(),
            source: fstype.to_owned(),
            flags: MountFlags {
                read_only: false,
                ..MountFlags::ALL
            },
            data: data.to_owned(),
            ..FileSystem::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_over_what_came_before() {
        let mounts = standard_mounts();
        for (at, mount) in mounts.iter().enumerate() {
            let hidden = |earlier: &Mount| earlier.target.starts_with(&mount.target);
            assert!(!mounts[..at].iter().any(hidden), "{}", mount.target);
        }
    }

    #[test]
    fn orders_are_taken_as_they_are() {
        let orders = Start {
            hostname: Some("other".to_owned()),
            ..Start::default()
        };
        let options = Options {
            start: Some(Box::new(orders.clone())),
            ..Options::default()
        };
        assert_eq!(options.start().as_ref(), Some(&orders));
        assert_eq!(Options::default().start(), None);

        let options = Options {
            modules: Some("/m".into()),
            ap: Some("62177883-f1bb-47f0-914d-32a22e3a8804".into()),
            ..options
        };
        let expected = Start {
            modules: Some(modules(None)),
            crypto_adapters: true,
            ..orders
        };
        assert_eq!(options.start(), Some(expected));
    }
}
