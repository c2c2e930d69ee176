//! What runq-vmm can be asked for, on the command line and, under the same names, in a JSON file.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, ValueEnum};
use proto::Start;
use serde::{Deserialize, Deserializer};
use vmm::share::P9Cache;
use vmm::{MIN_RAM, ap};

use super::disk::DiskOption;
use super::network::Network;
use super::vsock::Vsock;

const EXAMPLES: &str = r#"Examples:
  Run a command from a directory, with its output and exit code as ours:
    runq-vmm --rootfs /srv/alpine -- /bin/ls -l /
  A shell on two processors with 1 GiB, and the kernel's messages on stderr:
    runq-vmm --rootfs /srv/alpine --cpus 2 --mem 1G --console serial -- /bin/sh
  Share a second directory read-only; in the guest: mount -t virtiofs data /mnt
    runq-vmm --rootfs /srv/alpine --share data=/srv/data:ro -- /bin/sh
  The same by 9P; in the guest: mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose data /mnt
    runq-vmm --rootfs /srv/alpine --9pcache loose --share data=/srv/data:ro -- /bin/sh
  A disk, which is /dev/vda there, and one that is only read, past the host's page cache:
    runq-vmm --rootfs /srv/alpine --disk data.img --disk /dev/sdb,ro,cache=none -- /bin/sh
  A network interface on a tap that this host routes; in the guest: ip addr add 10.9.8.2/24 dev eth0
    runq-vmm --rootfs /srv/alpine --net tap=tap0 -- /bin/sh
  A socket at which programs of this host reach those that listen in the guest's AF_VSOCK:
    runq-vmm --rootfs /srv/alpine --vsock socket=/run/guest.sock -- /bin/sh
  Boot some kernel with its own initrd, on the serial console, and show every exit:
    runq-vmm --kernel vmlinux --initrd initrd.img --console serial --trace
  Do what init does for a container, without one; FILE is {"kernel": ..., "share": ["data=/srv"],
  "start": {"root": {"file_system": {"fstype": "virtiofs", "source": "data"}, "path": "alpine"},
  "process": {"args": ["id"], "cwd": "/", "user": {"uid": 7}}}}:
    runq-vmm --config FILE

Exit code: that of the command (128+N if signal N ended it, 126 and 127 if it could not be run);
without a command, 0 when the guest powered off. 1: the VM could not be built or run; 2: wrong
usage; 3: the guest asked for a reset; 4: triple fault; 5: the guest's kernel panicked;
128+N: we were ended by signal N before the command ran."#;

/// Boots Linux in a small virtual machine of its own, and runs a command from a directory in it.
#[derive(Debug, Parser)]
#[command(name = "runq-vmm", version, after_help = EXAMPLES)]
pub(super) struct Cli {
    /// Read options from a JSON file: the long names below as keys, "command" as a list. What the
    /// command line says comes first. The key "start" holds all that the guest's init can be told,
    /// as proto's Start, instead of a command
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the monitor's own log, the story of the boot, to stderr (RUNQ_LOG does the same, with
    /// a level or target=level,...)
    #[arg(long)]
    pub debug: bool,

    #[command(flatten)]
    pub options: Options,
}

/// The options proper; unset means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    /// Directory that the command sees as /
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,

    /// Offer a directory as a share; can be given several times
    #[arg(long = "share", value_name = "TAG=DIR[:ro]")]
    #[serde(rename = "share")]
    pub shares: Vec<Share>,

    /// Share the root directory and all others by 9P instead of virtio-fs. MODE is what the guest keeps of
    /// what it has seen: nothing (none), all (loose, and fscache, which also has a disk for it), or what is
    /// mapped into memory (mmap)
    #[arg(long = "9pcache", value_name = "MODE")]
    #[serde(rename = "9pcache")]
    pub p9_cache: Option<P9Cache>,

    /// Give the guest a disk in an image (raw or qcow2, as it begins, if FORMAT does not say so) or on a
    /// block device, read-only with `ro`, with NAME as its serial number; can be given several times. MODE is what becomes of writes: in the page cache
    /// (writeback), safe before they are answered (writethrough), past the page cache (none), or
    /// without any flush (unsafe) [default: writeback]
    #[arg(
        long = "disk",
        value_name = "PATH[,cache=MODE][,ro][,id=NAME][,format=FORMAT]"
    )]
    #[serde(rename = "disk")]
    pub disks: Vec<DiskOption>,

    /// Give the guest a network interface: on a tap interface of this host, which is made if it does
    /// not exist, or on a macvtap interface; can be given several times
    #[arg(
        long = "net",
        value_name = "tap=NAME|macvtap=NAME[,mac=MAC][,queues=N]"
    )]
    #[serde(rename = "net")]
    pub networks: Vec<Network>,

    /// Let programs of this host connect to those of the guest by AF_VSOCK: at an address of the
    /// guest (CID) of the host's vhost-vsock, or by a Unix socket that is made at PATH, where a
    /// program writes "CONNECT PORT" and a newline, and reads "OK" once the guest has accepted
    #[arg(long, value_name = "cid=N|socket=PATH")]
    pub vsock: Option<Vsock>,

    /// s390x: give the guest the crypto adapters of a mediated device of vfio_ap; the command finds them as
    /// /dev/z90crypt, for which --modules has to have zcrypt_cex4 if the kernel has not
    #[arg(long, value_name = "UUID")]
    pub ap: Option<String>,

    /// Guest kernel, an ELF vmlinux or a bzImage [default: /var/lib/runq/vm/kernel]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initial ramdisk [default with a command: /var/lib/runq/vm/initrd; else none]
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Directory of the guest kernel's modules, with one for each version: the command finds it at /lib/modules,
    /// read-only, and init the file systems of disks that are modules
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,

    /// Appended to the kernel command line
    #[arg(long, value_name = "TEXT")]
    pub cmdline: Option<String>,

    /// Number of processors [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,

    /// Guest memory in MiB, or with a suffix: 512M, 2G [default: 256]
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<Size>,

    /// Processor features, from the host's: host,-avx2,pcid=off,+x2apic [default: host]
    #[arg(long, value_name = "FEATURES")]
    pub cpu: Option<String>,

    /// Where the kernel's messages go. Without a command the console is on stdin and stdout, with
    /// one on stderr [default: none with a command, else serial]
    #[arg(long, value_enum)]
    pub console: Option<ConsoleKind>,

    /// When done, print to stderr what it cost
    #[arg(long)]
    pub stats: bool,

    /// Print each exit of the guest to stderr
    #[arg(long)]
    pub trace: bool,

    /// What init is told, in place of what the root directory and the command make of it: to see
    /// without a container what init does for one.
    #[arg(skip)]
    pub start: Option<Box<Start>>,

    /// Command to run as root in the guest's root directory, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Which device the kernel's console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ConsoleKind {
    /// The 16550 at port 0x3f8 (ttyS0), or the SCLP's VT220 on s390x (ttysclp0): works from the first message on, but
    /// with many exits
    Serial,
    /// Virtio console (hvc0): fast, but silent until the driver is up
    Virtio,
    /// No console
    None,
}

/// A shared directory, written `TAG=DIR` or `TAG=DIR:ro`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Share {
    /// What the guest mounts it by.
    pub tag: String,
    /// The directory on the host.
    pub directory: PathBuf,
    /// Refuse all changes.
    pub read_only: bool,
}

/// Memory in bytes, written in MiB or with a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

impl Options {
    /// The options of a JSON file.
    ///
    /// # Errors
    /// When it cannot be read, or says what is not known; with the file's name and the place.
    pub(super) fn from_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        // serde would take a list for the values of all options in their order.
        if !text.trim_start().starts_with('{') {
            bail!("{}: expected a JSON object of options", path.display());
        }
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    /// These options, completed by those of a file.
    pub(super) fn or(self, file: Self) -> Self {
        let list = |mine: Vec<String>, theirs| if mine.is_empty() { theirs } else { mine };
        Self {
            rootfs: self.rootfs.or(file.rootfs),
            shares: [file.shares, self.shares].concat(),
            p9_cache: self.p9_cache.or(file.p9_cache),
            disks: [file.disks, self.disks].concat(),
            networks: [file.networks, self.networks].concat(),
            vsock: self.vsock.or(file.vsock),
            ap: self.ap.or(file.ap),
            kernel: self.kernel.or(file.kernel),
            initrd: self.initrd.or(file.initrd),
            modules: self.modules.or(file.modules),
            cmdline: self.cmdline.or(file.cmdline),
            cpus: self.cpus.or(file.cpus),
            mem: self.mem.or(file.mem),
            cpu: self.cpu.or(file.cpu),
            console: self.console.or(file.console),
            stats: self.stats || file.stats,
            trace: self.trace || file.trace,
            start: self.start.or(file.start),
            command: list(self.command, file.command),
        }
    }

    /// Finds what is wrong with the options in themselves, whatever the host is like.
    ///
    /// # Errors
    /// Names the option, its value and what is allowed.
    pub(super) fn check(&self) -> Result<()> {
        if self.cpus == Some(0) {
            bail!("--cpus 0: at least one processor is needed");
        }
        if let Some(Size(bytes)) = self.mem
            && bytes < MIN_RAM
        {
            bail!(
                "--mem {} MiB: at least {} MiB are needed",
                bytes >> 20,
                MIN_RAM >> 20
            );
        }
        if let Some(uuid) = &self.ap {
            ap::uuid(uuid).with_context(|| format!("--ap {uuid}"))?;
        }
        self.check_config()?;
        self.check_command()?;
        self.check_tags()
    }

    fn check_command(&self) -> Result<()> {
        match (&self.start, &self.rootfs, self.command.first()) {
            (Some(_), _, Some(command)) => {
                bail!("command {command:?}: \"start\" in --config names one: remove either")
            }
            (None, Some(_), None) => bail!("--rootfs: no command: add -- COMMAND [ARGS]"),
            (None, None, Some(command)) => {
                bail!("command {command:?}: no root directory: add --rootfs DIR")
            }
            _ => Ok(()),
        }
    }

    fn check_tags(&self) -> Result<()> {
        let mut tags: Vec<&str> = self.shares.iter().map(|share| share.tag.as_str()).collect();
        let ours = [
            (ROOT_TAG, "--rootfs", self.rootfs.is_some()),
            (MODULES_TAG, "--modules", self.modules.is_some()),
        ];
        for (tag, option, _) in ours.into_iter().filter(|(_, _, given)| *given) {
            if tags.contains(&tag) {
                bail!("--share {tag}=...: the tag is that of {option}: use another one");
            }
        }
        tags.sort_unstable();
        match tags.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => bail!(
                "--share {}=...: the tag is used twice: use another one",
                pair[0]
            ),
            None => Ok(()),
        }
    }
}

/// The tag of the share that is the command's root.
pub(super) const ROOT_TAG: &str = "root";
/// The tag of the share with the kernel's modules.
pub(super) const MODULES_TAG: &str = "modules";

/// In a file of options these are strings, in the same form as on the command line.
macro_rules! written_as_text {
    ($($option:ty),+) => {
        $(impl TryFrom<String> for $option {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        })+
    };
}

written_as_text!(DiskOption, Network, Share, Vsock);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tag, directory) = text.split_once('=').unwrap_or_default();
        let (directory, read_only) = match directory.strip_suffix(":ro") {
            Some(directory) => (directory, true),
            None => (directory, false),
        };
        if tag.is_empty() || directory.is_empty() {
            return Err(format!("{text:?} is not of the form TAG=DIR or TAG=DIR:ro"));
        }
        Ok(Self {
            tag: tag.to_owned(),
            directory: directory.into(),
            read_only,
        })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "k" | "kib" => 10,
            "" | "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => {
                return Err(format!(
                    "{text:?} is not a size: write MiB, or a suffix as in 2G"
                ));
            }
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("{text:?} is not a size: write a number of MiB"))?;
        match number.checked_mul(1 << shift) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(format!("{text:?} is more than can be addressed")),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(mib) => mib.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;
