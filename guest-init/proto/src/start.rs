//! What init is told to mount and to run.
//!
//! People write it, too, as JSON in files of options: there a field that is left out has its default,
//! and one that does not exist is an error. The messages know neither.

use serde::{Deserialize, Serialize};

use crate::exec::Agent;
use crate::{Interface, PacketRule, Resolver};

/// Everything that init needs to know to run one command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Start {
    /// The command's root file system.
    pub root: Root,
    /// Mounted inside the root, in this order, after /proc, /dev and /dev/pts, which every command
    /// has.
    pub mounts: Vec<Mount>,
    /// The kernel's modules, a directory for each version. Init loads from there what mounts of disks need, and
    /// mounts it on /lib/modules before [`Start::mounts`], except in a root that has no place for it and takes none.
    pub modules: Option<Mountable>,
    /// Device nodes beside those that /dev has anyway (the OCI runtime specification's default
    /// devices); made after all mounts. Whether the kernel knows the device shows when it is opened.
    pub devices: Vec<Device>,
    /// The command's disks, in order. The guest may have others, of which the command sees the nodes.
    pub disks: Vec<Disk>,
    /// The one of the disks that the root is on; unset: it is where [`Start::root`] says.
    pub root_disk: Option<RootDisk>,
    /// The guest has crypto adapters of s390x (AP), which the command finds as /dev/z90crypt. Init loads their driver from
    /// [`Start::modules`] if the kernel does not have it.
    pub crypto_adapters: bool,
    /// Network interfaces beside the loopback one, set up before the command starts.
    pub interfaces: Vec<Interface>,
    /// The packet filter's rules, in an order in which each can be added. A kernel that does not take
    /// all of them gets none, and the command starts nevertheless.
    pub packet_rules: Vec<PacketRule>,
    /// Whether init answers as Docker's resolver; its address has to be one of the guest's.
    pub resolver: Option<Resolver>,
    /// Contents of the file that is mounted, read-only, on /etc/resolv.conf; unset: no such mount.
    pub resolv_conf: Option<String>,
    /// Name of the guest; unset, it keeps the kernel's default.
    pub hostname: Option<String>,
    /// Kernel settings, in this order: name (with dots or slashes, as sysctl(8) has it) and value. A
    /// name that the kernel does not know is a failure, except below net.ipv6 if it has no IPv6.
    pub sysctls: Vec<(String, String)>,
    /// Absolute paths that the command shall not see; those that are not there are passed over.
    pub masked_paths: Vec<String>,
    /// Absolute paths that the command shall not change; those that are not there are passed over.
    pub read_only_paths: Vec<String>,
    /// What the command and its children may use together: files of their control group (cgroup v2), such as
    /// `memory.max`, and what is written there, in this order. Unset: they have no group of their own.
    pub cgroup: Option<Vec<(String, String)>>,
    /// Who runs further commands in the container; unset: nobody.
    pub agent: Option<Agent>,
    /// The command.
    pub process: Process,
}

/// The root file system of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Root {
    /// What to mount, where the command does not see it.
    pub file_system: FileSystem,
    /// Path in there of the directory that becomes the root, without a slash at its beginning;
    /// empty if it is the whole.
    pub path: String,
    /// Nothing can be written, except in what is mounted inside.
    pub read_only: bool,
}

/// A file system, as mount(2) takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSystem {
    /// Type, for example `virtiofs`.
    pub fstype: String,
    /// What to mount: the tag of a share, a device.
    pub source: String,
    /// Options that all file systems know.
    pub flags: MountFlags,
    /// Options that only this type knows, separated by commas; may be empty.
    pub data: String,
    /// When access times are written.
    pub access_times: AccessTimes,
}

/// When the time of a file's last access is written, as the options of mount(8) are called. Default: when it is older
/// than a day, or than the last change (`relatime`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessTimes {
    /// Never.
    pub noatime: bool,
    /// Never for directories.
    pub nodiratime: bool,
    /// At each access; then [`Self::noatime`] does not count.
    pub strictatime: bool,
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
            ..Default::default()
        }
    }

    /// The 9P share with this tag, writable, with one of the caches that Linux' 9P client has.
    ///
    /// As with virtio-fs the guest's kernel checks who may do what, access control lists included, and the
    /// host does what the guest says. 125 pages are the longest message by virtio (net/9p/trans_virtio.c).
    pub fn p9(tag: impl Into<String>, cache: &str) -> Self {
        Self {
            fstype: "9p".into(),
            source: tag.into(),
            data: format!(
                "trans=virtio,version=9p2000.L,msize=512000,access=client,posixacl,cache={cache}"
            ),
            ..Default::default()
        }
    }
}

/// Something to mount, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path in the root, where links lead nowhere else; it is created if it is missing: a
    /// directory, or an empty file for a bind mount of a file.
    ///
    /// A tmpfs takes the permissions of the directory that it covers, unless its data has a mode;
    /// a read-only one becomes so after all others were mounted, perhaps in it.
    pub target: String,
    /// What to mount there.
    pub what: Mountable,
}

/// What can be mounted in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mountable {
    /// A file system of its own.
    FileSystem(FileSystem),
    /// The same, but left out if the kernel does not know its type.
    Optional(FileSystem),
    /// A file or directory, with what is mounted below it, of the file system that the root is in.
    Bind {
        /// Its path in [`Root::file_system`], without a slash at its beginning.
        path: String,
        /// Options of the mount, and of all mounts below it.
        flags: MountFlags,
    },
}

/// Mount options that all file systems know. Default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

impl MountFlags {
    /// All of them: nothing can be done but read.
    pub const ALL: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: true,
    };
}

/// The command: what the OCI runtime specification calls `process`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// The command and its arguments. A command without a slash is searched in the PATH of `env`.
    pub args: Vec<String>,
    /// Environment, each `NAME=value`. HOME is added from the root's /etc/passwd if it is missing.
    pub env: Vec<String>,
    /// Absolute path of the working directory in the root; created if it is missing.
    pub cwd: String,
    /// Whose rights the command has.
    pub user: User,
    /// Resource limits to set; the others stay the kernel's.
    pub rlimits: Vec<Rlimit>,
    /// Those that the kernel does not know are passed over. Unset: none is taken away, so that root
    /// has all that the kernel knows.
    pub capabilities: Option<Capabilities>,
    /// Executing a program can give no more rights, by its set-user-id bit for one.
    pub no_new_privileges: bool,
    /// System call filter, as the instructions of `struct sock_filter`; empty: none.
    pub seccomp: Vec<FilterInstruction>,
    /// File mode creation mask; unset: 0022.
    pub umask: Option<u32>,
    /// How soon the kernel ends it for want of memory, -1000 to 1000, as proc_pid_oom_score_adj(5);
    /// unset: 0.
    pub oom_score_adj: Option<i32>,
    /// Run on a terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
    /// Without a terminal, standard input is /dev/null instead of a pipe: the host names no port for it.
    pub null_input: bool,
}

/// The capability sets of capabilities(7), bit N for capability N, as the process has them when it
/// executes the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "named and described in capabilities(7)")]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// One instruction of a filter, `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the condition is true.
    pub jt: u8,
    /// Instructions to skip if it is false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path in the root.
    pub path: String,
    /// Block device, else a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions, whatever the umask.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A disk, which the command finds as /dev/disk/by-runq-id/ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The user's name for it: a file name.
    pub id: String,
    /// The serial number of the virtio device (virtio 1.3, section 5.2.6).
    pub serial: String,
    /// Nothing can be written.
    pub read_only: bool,
    /// What is mounted of it; unset: nothing.
    pub mount: Option<DiskMount>,
}

/// The file system on a whole disk; its devices and set-user-id programs are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskMount {
    /// Its type, for example `ext4`.
    pub fstype: String,
    /// As [`Mount::target`]. It is mounted before those of [`Start::mounts`] and [`Start::disks`] that are
    /// below it, and else after them, so that it covers one at the same place.
    pub target: String,
}

/// A root on a disk with an ext2 or ext4 file system. The first boot copies the files of
/// [`Root::path`] there; what is mounted in the root stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDisk {
    /// [`Disk::id`] of the disk, which can be written and is not mounted elsewhere.
    pub id: String,
    /// Absolute paths in the root that are not copied: a directory is made, but empty.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// User and groups of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// A resource limit, in the units of setrlimit(2); `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
