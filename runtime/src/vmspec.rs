//! What `runq` tells `proxy`: the machine to run, and what init is to do in it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use proto::Start;
use serde::{Deserialize, Serialize};
use vmm::disk::Cache;
use vmm::share::P9Cache;

use crate::resolv_conf::Dns;

/// Version of [`VmSpec`]: our own number above that of the messages, which it contains.
pub const VERSION: u32 = (1 << 16) | proto::VERSION;

/// Where `proxy` finds the file.
pub const PATH: &str = "/run/vmspec.json";

/// Where `proxy` writes to if the guest's kernel has killed a process for want of memory.
pub const KILLS: &str = "/run/kills";

/// Where `proxy` tells `runq start` that the container's process is started, or why not: a FIFO.
pub const STARTED: &str = "/run/started";

/// Where `proxy` finds the sysfs of its network namespace.
pub const SYS: &str = "/sys";

/// The folder that `proxy` shares with the guest: `root`, [`SHARED_MODULES`], and `volumes/0` and so on.
pub const SHARE: &str = "/run/share";

/// The kernel's modules there.
pub const SHARED_MODULES: &str = "modules";

/// The folder in which `proxy` finds disks: each in one of its own, `0` and so on, with what it stands on. It is
/// in /dev because that alone may have device nodes, and is not shared with the guest.
pub const DISKS: &str = "/dev/disks";

/// Tag of that share.
pub const SHARE_TAG: &str = "runq";

/// The longest file that is read, in bytes: JSON takes a few times what the same message takes on its way to the
/// guest, which is bounded as well.
const MAX_SIZE: u64 = 16 * proto::MAX_FRAME as u64;

/// The machine of one container: bundle/vmspec.json, for `proxy` /run/vmspec.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// [`VERSION`] of the `runq` that wrote it.
    pub version: u32,
    /// Number of virtual CPUs, at least 1.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Switches for CPU features, as [`vmm::CpuFeatures`] reads them.
    pub cpu_features: String,
    /// Whether the command is systemd, which wants other signals and has other exit codes.
    pub systemd: bool,
    /// Contents of the container's resolv.conf; unset: it stays Docker's.
    pub dns: Option<Dns>,
    /// By 9P with this cache the share is served, not by virtio-fs.
    pub p9_cache: Option<P9Cache>,
    /// Disks, in the order of the guest's names for them.
    pub disks: Vec<Disk>,
    /// The mediated device with the guest's crypto adapters, by its UUID.
    pub crypto: Option<String>,
    /// What init mounts and runs.
    pub start: Start,
}

/// A disk of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// What the user knows it by, for messages.
    pub name: String,
    /// The file or block device.
    pub path: PathBuf,
    /// How the guest tells it from others.
    pub serial: String,
    /// What becomes of writes.
    #[serde(with = "cache")]
    pub cache: Cache,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// A cache mode is written by its name.
mod cache {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use vmm::disk::Cache;

    pub(super) fn serialize<S: Serializer>(mode: &Cache, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(mode.name())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Cache, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The part of the file that is looked at first: what else there is depends on it.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl VmSpec {
    /// Reads what [`VmSpec::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is too long, was written by another version of `runq`, or is
    /// not what this version writes.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut text = String::new();
        file.take(MAX_SIZE + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        ensure!(
            text.len() as u64 <= MAX_SIZE,
            "longer than the {MAX_SIZE} bytes that are allowed"
        );
        let Versioned { version } = serde_json::from_str(text)?;
        if version != VERSION {
            bail!(
                "written by another version of runq ({version:#x}; this is {VERSION:#x}): install \
                 runq, proxy and initrd of one build"
            );
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Writes a new file that only its owner can read, and nobody can write.
    ///
    /// # Errors
    /// When the file exists already, or cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("vmspec.json")?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(path)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            version: VERSION,
            cpus: 2,
            memory_mib: 256,
            cpu_features: "host,-avx2".into(),
            systemd: true,
            dns: Some(Dns::default()),
            p9_cache: Some(P9Cache::Loose),
            disks: vec![Disk {
                name: "data (/srv/data)".into(),
                path: "/dev/disks/0/data".into(),
                serial: "runq-0".into(),
                cache: Cache::Writethrough,
                read_only: true,
            }],
            crypto: Some("62177883-f1bb-47f0-914d-32a22e3a8804".into()),
            start: Start::default(),
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmspec.json");
        spec().save(&path).unwrap();
        assert_eq!(VmSpec::load(&path).unwrap(), spec());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);
        let error = format!("{:#}", spec().save(&path).unwrap_err());
        assert!(error.contains("File exists"), "{error}");
    }

    #[test]
    fn another_version_is_told_before_anything_else() {
        let error = VmSpec::parse(r#"{"version": 1, "processors": 3}"#).unwrap_err();
        assert!(error.to_string().contains("another version of runq (0x1;"));
    }

    #[test]
    fn an_unknown_field_is_named() {
        let mut value = serde_json::to_value(spec()).unwrap();
        value["sound"] = 7.into();
        let error = VmSpec::parse(&value.to_string()).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `sound`"),
            "{error}"
        );
    }

    #[test]
    fn a_cache_mode_is_named() {
        let mut value = serde_json::to_value(spec()).unwrap();
        assert_eq!(value["disks"][0]["cache"], "writethrough");
        value["disks"][0]["cache"] = "directsync".into();
        let error = VmSpec::parse(&value.to_string()).unwrap_err();
        assert!(error.to_string().contains("directsync"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = VmSpec::load(Path::new("/nonexistent/vmspec.json")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot open /nonexistent/vmspec.json: No such file or directory (os error 2)"
        );
    }
}
