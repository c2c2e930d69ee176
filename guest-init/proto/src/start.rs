//! What init is told to mount and to run.

use serde::{Deserialize, Serialize};

/// Everything that init needs to know to run one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The command's root file system.
    pub root: FileSystem,
    /// Mounted inside the root after the standard file systems (/proc, /sys, /dev and theirs), in
    /// this order.
    pub mounts: Vec<Mount>,
    /// Name of the guest; unset, it keeps the kernel's default.
    pub hostname: Option<String>,
    /// The command.
    pub process: Process,
}

/// A file system, as mount(2) takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// Type, for example `virtiofs`.
    pub fstype: String,
    /// What to mount: a virtio-fs tag, a device.
    pub source: String,
    /// Options that all file systems know.
    pub flags: MountFlags,
    /// Options that only this type knows, separated by commas; may be empty.
    pub data: String,
}

impl FileSystem {
    /// The virtio-fs share with this tag, with no restriction except perhaps read-only.
    pub fn virtiofs(tag: impl Into<String>, read_only: bool) -> Self {
        Self {
            fstype: "virtiofs".into(),
            source: tag.into(),
            flags: MountFlags {
                read_only,
                ..Default::default()
            },
            data: String::new(),
        }
    }
}

/// A file system and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path of a directory in the root; it is created if it is missing.
    pub target: String,
    /// What to mount there.
    pub file_system: FileSystem,
}

/// Mount options that all file systems know. Default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// Nothing can be written.
    pub read_only: bool,
    /// Set-user-id, set-group-id bits and file capabilities have no effect.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Programs cannot be executed.
    pub noexec: bool,
}

/// The command: what the OCI runtime specification calls `process`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The command and its arguments. A command without a slash is searched in the PATH of `env`.
    pub args: Vec<String>,
    /// Environment, each `NAME=value`. HOME is added from the root's /etc/passwd if it is missing.
    pub env: Vec<String>,
    /// Absolute path of the working directory in the root.
    pub cwd: String,
    /// Whose rights the command has.
    pub user: User,
    /// Resource limits to set; the others stay the kernel's.
    pub rlimits: Vec<Rlimit>,
    /// Run on a terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
}

/// User and groups of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub additional_gids: Vec<u32>,
}

/// Size of a terminal's window in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// A resource limit, in the units of setrlimit(2); `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit that counts.
    pub soft: u64,
    /// How far the process itself may raise it.
    pub hard: u64,
}

/// The resources of setrlimit(2) on Linux, `RLIMIT_` left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named and described in setrlimit(2)")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}
