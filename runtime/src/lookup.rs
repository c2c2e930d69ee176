//! Whether the container's command is there, as far as the host can tell: then `create` fails as runc's does, and no
//! machine is booted for nothing.
//!
//! Only what is certain is said. Init looks for itself, as the container's user and with everything mounted.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proto::Start;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// Symbolic links that are followed, as by Linux (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// What init mounts in any case.
const OWN_MOUNTS: [&str; 2] = ["/proc", "/dev"];

/// Why the command of `start` cannot be executed in the root directory `root`, in the words of runc, which has what Go says
/// of it; none if it can be, or that is not certain.
pub(crate) fn failure(start: &Start, root: &Path) -> Option<String> {
    if start.root_disk.is_some() {
        return None;
    }
    let root = Root::open(root, start).ok()?;
    let process = &start.process;
    let command = process.args.first().filter(|command| !command.is_empty())?;
    let cwd = Path::new(&process.cwd);
    if command.contains('/') {
        let reason = match root.look(&cwd.join(command)) {
            Find::Missing => format!("stat {command}: no such file or directory"),
            Find::Directory => "is a directory".to_owned(),
            Find::NoProgram => "permission denied".to_owned(),
            Find::Program | Find::Unknown => return None,
        };
        return Some(format!("exec: {command:?}: {reason}"));
    }
    let path = process.env.iter().rev();
    let path = path
        .filter_map(|entry| entry.strip_prefix("PATH="))
        .next()?;
    let mut folders = path.split(':');
    let may_be = |folder| {
        let found = root.look(&cwd.join(folder).join(command));
        matches!(found, Find::Program | Find::Unknown)
    };
    (!folders.any(may_be)).then(|| format!("exec: {command:?}: executable file not found in $PATH"))
}

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
enum Find {
    /// A file that somebody may execute.
    Program,
    /// A file that nobody may execute.
    NoProgram,
    Directory,
    Missing,
    /// In a mount, or it cannot be found out.
    Unknown,
}

/// A container's root directory.
struct Root {
    directory: OwnedFd,
    /// Where something is mounted in it, without symbolic links.
    mounts: Vec<PathBuf>,
}

impl Root {
    fn open(path: &Path, start: &Start) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut root = Self {
            directory: openat(CWD, path, flags, Mode::empty())?,
            mounts: OWN_MOUNTS.map(PathBuf::from).into(),
        };
        let modules = start.modules.iter().map(|_| "/lib/modules");
        let others = start.mounts.iter().map(|mount| mount.target.as_str());
        for target in others.chain(modules) {
            let mut walk = Walk::new(&root, Path::new(target));
            // Where it ends before the path does, the rest is made for the mount.
            let _ = walk.finish();
            let rest: PathBuf = walk.names.iter().collect();
            root.mounts.push(walk.place().join(rest));
        }
        Ok(root)
    }

    /// Whether something is mounted below this place.
    fn mounts_below(&self, place: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.starts_with(place))
    }

    fn look(&self, path: &Path) -> Find {
        let mut walk = Walk::new(self, path);
        let mode = match walk.finish() {
            Ok(true) => fstat(walk.last()).map(|stat| stat.st_mode),
            Ok(false) => return Find::Unknown,
            Err(Errno::NOENT) => return Find::Missing,
            Err(error) => Err(error),
        };
        match mode.map(|mode| (FileType::from_raw_mode(mode), mode & 0o111)) {
            Ok((FileType::Directory, _)) => Find::Directory,
            Ok((_, 0)) => Find::NoProgram,
            Ok(_) => Find::Program,
            Err(_) => Find::Unknown,
        }
    }
}

/// A way along a path, name by name, so that links lead nowhere else.
struct Walk<'a> {
    root: &'a Root,
    /// The directories that it is in.
    reached: Vec<(OsString, OwnedFd)>,
    /// What is left.
    names: VecDeque<OsString>,
    links: u32,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root, path: &Path) -> Self {
        let mut walk = Self {
            root,
            reached: Vec::new(),
            names: VecDeque::new(),
            links: 0,
        };
        walk.go_on(path.as_os_str());
        walk
    }

    /// Puts a path before what is left.
    fn go_on(&mut self, path: &OsStr) {
        if path.as_bytes().starts_with(b"/") {
            self.reached.clear();
        }
        for name in path.as_bytes().split(|byte| *byte == b'/').rev() {
            if !matches!(name, b"" | b".") {
                self.names.push_front(OsStr::from_bytes(name).to_owned());
            }
        }
    }

    fn place(&self) -> PathBuf {
        let names = self.reached.iter().map(|(name, _)| name);
        Path::new("/").join(names.collect::<PathBuf>())
    }

    fn last(&self) -> BorrowedFd<'_> {
        let last = self.reached.last();
        last.map_or(self.root.directory.as_fd(), |(_, file)| file.as_fd())
    }

    /// Goes to the end; false if it comes to a mount.
    fn finish(&mut self) -> Result<bool, Errno> {
        while let Some(name) = self.names.front().cloned() {
            if name == ".." {
                self.reached.pop();
                self.names.pop_front();
                continue;
            }
            let place = self.place().join(&name);
            if self.root.mounts.contains(&place) {
                return Ok(false);
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match openat(self.last(), &name, flags, Mode::empty()) {
                // It will be made, for what is mounted below it.
                Err(Errno::NOENT) if self.root.mounts_below(&place) => return Ok(false),
                file => file?,
            };
            self.names.pop_front();
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::Symlink {
                self.reached.push((name, file));
                continue;
            }
            self.links += 1;
            if self.links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(&file, "", Vec::new())?;
            self.go_on(OsStr::from_bytes(target.as_bytes()));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proto::{Mount, Mountable, Process, RootDisk};
    use tempfile::TempDir;

    use super::*;

    /// An image's root.
    fn root() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        for folder in ["usr/bin", "etc", "run", "proc", "data"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        for (file, mode) in [("usr/bin/sh", 0o755), ("usr/bin/text", 0o644)] {
            fs::write(path.join(file), "").unwrap();
            fs::set_permissions(path.join(file), PermissionsExt::from_mode(mode)).unwrap();
        }
        for (target, link) in [
            ("usr/bin", "bin"),
            ("/usr/bin/sh", "usr/bin/absolute"),
            ("../../../bin/sh", "usr/bin/relative"),
            ("/proc/self/exe", "usr/bin/own"),
            ("loop", "usr/bin/loop"),
            ("/run", "var"),
        ] {
            symlink(target, path.join(link)).unwrap();
        }
        root
    }

    fn start(command: &str) -> Start {
        Start {
            process: Process {
                args: vec![command.to_owned()],
                env: vec!["PATH=/sbin".into(), "PATH=/usr/sbin:/bin".into()],
                cwd: "/".into(),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn mounted(command: &str, target: &str) -> Start {
        let what = Mountable::Bind {
            path: "volumes/0".into(),
            flags: Default::default(),
        };
        let target = target.to_owned();
        let mounts = vec![Mount { target, what }];
        Start {
            mounts,
            ..start(command)
        }
    }

    #[test]
    fn what_cannot_be_executed_is_told_as_by_runc() {
        let root = root();
        for (command, reason) in [
            ("nothing", "executable file not found in $PATH"),
            ("text", "executable file not found in $PATH"),
            (
                "/bin/nothing",
                "stat /bin/nothing: no such file or directory",
            ),
            ("./sh", "stat ./sh: no such file or directory"),
            ("/usr/bin/text", "permission denied"),
            ("/usr/bin", "is a directory"),
            ("/", "is a directory"),
        ] {
            let expected = format!("exec: {command:?}: {reason}");
            assert_eq!(failure(&start(command), root.path()), Some(expected));
        }
    }

    #[test]
    fn nothing_is_told_of_what_can_be_executed_or_is_not_certain() {
        let root = root();
        for command in [
            "sh",
            "/bin/sh",
            "absolute",
            "relative",
            "bin/sh",
            "/bin/../../bin/absolute",
            // The kernel's own words.
            "loop",
            "/usr/bin/sh/x",
            // Made by init.
            "/proc/self/exe",
            "own",
            "/dev/fd/3",
            "",
        ] {
            assert_eq!(failure(&start(command), root.path()), None, "{command}");
        }
        assert_eq!(failure(&start("sh"), Path::new("/nonexistent")), None);
    }

    #[test]
    fn what_is_mounted_is_not_looked_at() {
        let root = root();
        let told = |command: &str, target: &str| failure(&mounted(command, target), root.path());
        assert_eq!(told("/data/tool", "/data"), None);
        assert_eq!(told("/var/new/tool", "/run/new"), None);
        assert_eq!(told("/run/new/tool", "/var/new"), None);
        assert_eq!(told("nothing", "/usr/bin/nothing"), None);
        assert_eq!(told("/sbin/init", "/sbin/init"), None);
        assert!(told("nothing", "/data").is_some());
        assert!(told("/data/tool", "/data/tools").is_some());
        let start = Start {
            root_disk: Some(RootDisk {
                id: "root".into(),
                exclude: Vec::new(),
            }),
            ..start("nothing")
        };
        assert_eq!(failure(&start, root.path()), None, "it is on another disk");
    }
}
