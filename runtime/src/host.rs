//! Looking at the host: what the split has to know of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::certs::Certificates;
use crate::chain::{self, Image};
use anyhow::{Context, Result, ensure};
use nix::sys::sysinfo::sysinfo;
use nix::unistd::{SysconfVar, sysconf};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use vmm::ap::Matrix;

/// What no VM runs without.
pub const KVM: &str = "/dev/kvm";
/// What the monitor can do without, at a price.
const OPTIONAL: [&str; 2] = ["/dev/vhost-net", "/dev/vhost-vsock"];

/// What a VM is made of: the monitor, and what guests boot. They are files of the folder that is
/// every container's root.
const PARTS: [&str; 3] = ["proxy", "kernel", "initrd"];

/// Where in that folder the kernel's modules are, a folder for each version; a kernel may have none.
pub const MODULES: &str = "lib/modules";

/// The version of runq that was installed there.
const INSTALLED_VERSION: &str = "version";

/// The commit that it was built from, for users to see; builds outside of a repository have none.
const INSTALLED_COMMIT: &str = "commit";

/// Open files that Linux allows a process unless told otherwise (`sysctl_nr_open` of fs/file.c).
const DEFAULT_OPEN_FILES: u64 = 1 << 20;

/// What has to be known of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The folder that becomes every container's root, with `proxy` in it; absolute.
    pub vm_folder: String,
    /// Whether the folder has the kernel's modules ([`MODULES`]).
    pub modules: bool,
    /// The commit that what is installed was built from, if that is known.
    pub commit: Option<String>,
    /// The container's bundle; absolute.
    pub bundle: String,
    /// The container's ID.
    pub container: String,
    /// The certificates that are installed, or why there are none.
    pub certificates: Result<Certificates, String>,
    /// Those devices that the monitor can use and the host has.
    pub devices: Vec<Device>,
    /// Major number of the devices /dev/tapN, if there are any.
    pub macvtap_major: Option<u32>,
    /// Its processors that are online.
    pub cpus: u32,
    /// Most vCPUs that its KVM gives a machine.
    pub max_vcpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Most open files that a process can be allowed (/proc/sys/fs/nr_open).
    pub open_files: u64,
    /// What is at the paths that become disks, or why that cannot be told.
    pub files: BTreeMap<String, Result<FileKind, String>>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "major and minor number, as mknod(2) has them")]
pub enum FileKind {
    /// A file with contents, which are those of an image.
    Regular(Image),
    /// A block device.
    Block { major: u32, minor: u32 },
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

impl Host {
    /// Where a path of the container's configuration leads: relative ones begin at the bundle.
    pub(crate) fn resolve(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.bundle)
        }
    }
}

/// A character device of the host.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "major and minor number, as mknod(2) has them")]
pub struct Device {
    /// Path, on the host and in the container.
    pub path: String,
    pub major: u32,
    pub minor: u32,
}

/// Looks at the host for a container with this bundle and ID; `root` is where runq is installed.
///
/// # Errors
/// When something is missing that no VM runs without.
pub fn probe(bundle: &Path, container: &str, root: &Path) -> Result<Host> {
    let vm_folder = root.join("vm");
    for part in PARTS {
        let path = vm_folder.join(part);
        ensure!(
            path.is_file(),
            "{}: not found: install runq there, or name its folder by RUNQ_ROOT",
            path.display()
        );
    }
    check_version(&vm_folder)?;
    let max_vcpus = vmm::kvm::open()?.get_max_vcpus();
    let kvm =
        device(KVM).context("/dev/kvm: not found: `runq check` tells what this host needs")?;
    let optional = OPTIONAL.into_iter().filter_map(device);
    Ok(Host {
        vm_folder: text(&vm_folder)?,
        modules: vm_folder.join(MODULES).is_dir(),
        commit: commit(&vm_folder),
        bundle: text(bundle)?,
        container: container.to_owned(),
        certificates: Certificates::read(root).map_err(|error| format!("{error:#}")),
        devices: std::iter::once(kvm).chain(optional).collect(),
        macvtap_major: load_macvtap(),
        cpus: online_cpus()?,
        max_vcpus: u32::try_from(max_vcpus).unwrap_or(u32::MAX),
        memory_mib: sysinfo().context("memory of the host")?.ram_total() >> 20,
        open_files: open_files(),
        files: BTreeMap::new(),
    })
}

/// Looks at what a path leads to, and at what that stands on.
pub(crate) fn look(path: &str) -> Result<FileKind, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    let kind = metadata.file_type();
    Ok(if kind.is_file() {
        let image = chain::look(Path::new(path));
        FileKind::Regular(image.map_err(|error| format!("{error:#}"))?)
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_block_device() {
        FileKind::Block {
            major: libc::major(metadata.rdev()),
            minor: libc::minor(metadata.rdev()),
        }
    } else {
        FileKind::Other
    })
}

fn commit(vm_folder: &Path) -> Option<String> {
    let text = fs::read_to_string(vm_folder.join(INSTALLED_COMMIT)).ok()?;
    Some(text.trim().to_owned()).filter(|commit| !commit.is_empty())
}

/// Whether what is installed was built together with this program: they speak to each other.
///
/// # Errors
/// When it was not.
pub fn check_version(vm_folder: &Path) -> Result<()> {
    let path = vm_folder.join(INSTALLED_VERSION);
    let path_name = path.display();
    let installed =
        fs::read_to_string(&path).with_context(|| format!("{path_name}: install runq anew"))?;
    let (installed, ours) = (installed.trim(), env!("CARGO_PKG_VERSION"));
    ensure!(
        installed == ours,
        "{path_name}: version {:?}, but this is runq {ours}: install all of one version",
        installed
    );
    Ok(())
}

fn online_cpus() -> Result<u32> {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN)?.context("number of processors")?;
    Ok(u32::try_from(online)?)
}

/// An absolute path that JSON can have.
fn text(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{}: the name has to be UTF-8", path.display()))
}

/// The numbers of a character device, if it is there.
pub fn device(path: &str) -> Option<Device> {
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_char_device().then(|| Device {
        path: path.to_owned(),
        major: libc::major(metadata.rdev()),
        minor: libc::minor(metadata.rdev()),
    })
}

/// The same, with the module loaded if it is not: the rules for a container's devices need the number
/// before the kernel loads it for the first of its interfaces.
fn load_macvtap() -> Option<u32> {
    macvtap_major().or_else(|| {
        let mut modprobe = Command::new("modprobe");
        let modprobe = modprobe.args(["-q", "macvtap"]).stdin(Stdio::null());
        modprobe.status().ok()?;
        macvtap_major()
    })
}

/// Major number of the devices /dev/tapN, if the kernel has them.
pub fn macvtap_major() -> Option<u32> {
    parse_macvtap_major(&fs::read_to_string("/proc/devices").ok()?)
}

/// From /proc/devices, "MAJOR NAME" a line.
fn parse_macvtap_major(devices: &str) -> Option<u32> {
    let mut lines = devices.lines();
    lines.find_map(|line| line.trim().strip_suffix(" macvtap")?.parse().ok())
}

/// The devices by which the monitor has the crypto adapters of a mediated device.
///
/// # Errors
/// One line about what that, or the host, lacks.
pub(crate) fn crypto(uuid: &str) -> Result<Vec<Device>> {
    let matrix = Matrix::find(Path::new("/sys"), uuid)?;
    let devices = matrix.nodes().map(|path| {
        let device = device(&path);
        device.with_context(|| {
            format!("{path}: not found: load the module vfio_iommu_type1, and have udev make it")
        })
    });
    devices.into_iter().collect()
}

/// As many as the kernel allows, if we may raise limits; else our own limit, as in a container that
/// Docker runs in.
fn open_files() -> u64 {
    let may_raise =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    let own = getrlimit(Resource::Nofile).maximum;
    let most = fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    own.filter(|_| !may_raise)
        .or(most.trim().parse().ok())
        .unwrap_or(DEFAULT_OPEN_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_devices() {
        let null = device("/dev/null").unwrap();
        assert_eq!((null.major, null.minor), (1, 3));
        assert!(device("/dev/nothing").is_none());
        assert!(device("/proc/devices").is_none());
    }

    #[test]
    fn what_a_path_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        let image = Image {
            name: "file".into(),
            backing: Vec::new(),
        };
        for name in ["file", "link"] {
            assert_eq!(look(&path(name)), Ok(FileKind::Regular(image.clone())));
        }
        assert_eq!(look(&path("")), Ok(FileKind::Directory));
        assert_eq!(look("/dev/null"), Ok(FileKind::Other));
        let error = look(&path("nothing")).unwrap_err();
        assert_eq!(error, "No such file or directory (os error 2)");
        // A qcow2 image, cut off.
        fs::write(path("cut"), b"QFI\xfb").unwrap();
        let error = look(&path("cut")).unwrap_err();
        assert!(
            error.starts_with("image \"cut\": its header is cut off: "),
            "{error}"
        );
    }

    #[test]
    fn the_major_number_of_macvtap() {
        let devices = "Character devices:\n  1 mem\n237 macvtap\n\nBlock devices:\n  8 sd\n";
        assert_eq!(parse_macvtap_major(devices), Some(237));
        assert_eq!(parse_macvtap_major("Character devices:\n 10 misc\n"), None);
    }

    #[test]
    fn what_is_not_installed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let vm = folder.path().join("vm");
        fs::create_dir(&vm).unwrap();
        for part in PARTS {
            let error = probe(folder.path(), "id", folder.path()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "{}/{part}: not found: install runq there, or name its folder by RUNQ_ROOT",
                    vm.display()
                )
            );
            fs::write(vm.join(part), "").unwrap();
        }
        let error = probe(folder.path(), "id", folder.path()).unwrap_err();
        let expected = format!("{}/version: install runq anew", vm.display());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn what_is_installed_is_of_one_version() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join(INSTALLED_VERSION);
        fs::write(&version, concat!(env!("CARGO_PKG_VERSION"), "\n")).unwrap();
        check_version(folder.path()).unwrap();
        fs::write(&version, "0.0.0\n").unwrap();
        let error = check_version(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("version \"0.0.0\", but this is runq"),
            "{error}"
        );
    }
}
