//! What init does for a container: everything that it can be told and `runq-vmm` has no option for.

mod files;
mod limits;
mod modules;
mod rights;

use std::fs;
use std::path::Path;

use proto::{
    FileSystem, FilterInstruction, Mount, MountFlags, Mountable, Process, Root, Start, User,
};
use tempfile::TempDir;
use tests::guest::{Finished, Guest, Kernel, Rootfs};

/// Tag of the one share.
const TAG: &str = "runq";
/// The capabilities of a container of Docker.
const DOCKERS: u64 = 0xa804_25fb;
const PATH: &str = "PATH=/bin";

/// A share like a container's: the image's root is mounted in it, and so are volumes.
struct Container {
    rootfs: Rootfs,
    share: TempDir,
    /// What the host mounts in the share before.
    mounts: Vec<String>,
    start: Start,
}

impl Container {
    /// A container that runs a script as root.
    fn new(script: &str) -> Self {
        let rootfs = Rootfs::new().unwrap().with_fscheck().unwrap();
        let share = TempDir::new_in("/var/tmp").unwrap();
        let mut container = Self {
            mounts: Vec::new(),
            share,
            start: Start {
                root: Root {
                    file_system: FileSystem::virtiofs(TAG, false),
                    path: "root".to_owned(),
                    read_only: false,
                },
                process: Process {
                    args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                    env: vec![PATH.to_owned()],
                    cwd: "/".to_owned(),
                    ..Process::default()
                },
                ..Start::default()
            },
            rootfs,
        };
        let root = container.rootfs.path().to_owned();
        container.mount_on_host(&root, "root");
        container
    }

    /// Lets the host mount a directory or file in the share.
    fn mount_on_host(&mut self, source: &Path, name: &str) {
        let target = self.share.path().join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if source.is_dir() {
            fs::create_dir(&target).unwrap();
        } else {
            fs::write(&target, "").unwrap();
        }
        self.bind_on_host(source, &target);
    }

    fn bind_on_host(&mut self, source: &Path, target: &Path) {
        let (source, target) = (source.display(), target.display());
        self.mounts.push(format!("mount --rbind {source} {target}"));
    }

    /// A volume: what is at this path on the host, in the guest.
    fn volume(&mut self, source: &Path, target: &str, flags: MountFlags) {
        let path = format!("volumes/{}", self.start.mounts.len());
        self.mount_on_host(source, &path);
        self.mount(target, Mountable::Bind { path, flags });
    }

    fn mount(&mut self, target: &str, what: Mountable) {
        self.start.mounts.push(Mount {
            target: target.to_owned(),
            what,
        });
    }

    fn mount_file_system(&mut self, target: &str, fstype: &str, flags: MountFlags) {
        let file_system = FileSystem {
            fstype: fstype.to_owned(),
            source: fstype.to_owned(),
            flags,
            ..FileSystem::default()
        };
        self.mount(target, Mountable::FileSystem(file_system));
    }

    fn guest(&self, kernel: Kernel) -> Guest {
        let (kernel, initrd) = kernel.files().unwrap();
        let options = serde_json::json!({
            "kernel": kernel, "initrd": initrd, "start": self.start,
            "share": [format!("{TAG}={}", self.share.path().display())],
        });
        let file = self.rootfs.join("tmp/options.json");
        fs::write(&file, options.to_string()).unwrap();
        let guest = Guest::bare().unwrap().option("--config", &file);
        guest.after(&self.mounts.join("; "))
    }

    fn run(&self, kernel: Kernel) -> Finished {
        self.guest(kernel).launch().unwrap().wait().unwrap()
    }
}

const NO_FLAGS: MountFlags = MountFlags {
    read_only: false,
    nosuid: false,
    nodev: false,
    noexec: false,
};
const READ_ONLY: MountFlags = MountFlags {
    read_only: true,
    ..NO_FLAGS
};

/// A user of the root's passwd, in two more groups.
fn alice() -> User {
    User {
        uid: 1000,
        gid: 1000,
        additional_gids: vec![7, 4711],
    }
}

// linux/bpf_common.h, linux/seccomp.h.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// A filter that lets mkdir(2) fail with EPROTO, which it never does otherwise.
fn no_mkdir() -> Vec<FilterInstruction> {
    const MKDIR: u32 = 83;
    const EPROTO: u32 = 71;
    vec![
        // The system call's number is the first of struct seccomp_data.
        instruction(LOAD, 0, 0),
        instruction(JUMP_IF_EQUAL, 1, MKDIR),
        instruction(RETURN, 0, ALLOW),
        instruction(RETURN, 0, ERRNO | EPROTO),
    ]
}

/// A filter that lets all system calls but these fail with EPERM, as Docker's does.
fn only(calls: &[u8]) -> Vec<FilterInstruction> {
    const EPERM: u32 = 1;
    let mut filter = vec![instruction(LOAD, 0, 0)];
    for (left, &call) in (0..calls.len()).rev().zip(calls) {
        // To the last instruction.
        let skipped = u8::try_from(left + 1).unwrap();
        filter.push(instruction(JUMP_IF_EQUAL, skipped, call.into()));
    }
    filter.push(instruction(RETURN, 0, ERRNO | EPERM));
    filter.push(instruction(RETURN, 0, ALLOW));
    filter
}

fn instruction(code: u16, jt: u8, k: u32) -> FilterInstruction {
    FilterInstruction { code, jt, jf: 0, k }
}
