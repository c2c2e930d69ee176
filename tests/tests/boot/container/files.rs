//! Roots, volumes, devices, and paths that are hidden.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proto::{Device, FileSystem, MountFlags, Mountable};
use tempfile::TempDir;
use tests::guest::Kernel;

use super::{Container, NO_FLAGS, READ_ONLY};
use crate::{assert_code, assert_silent};

/// What was mounted, and what can be written.
const SCRIPT: &str = r#"
awk '{ print $2, $3 }' /proc/mounts
echo ==
try() { "$@" 2>&1 && echo "done: $*"; }
try touch /etc/new
try touch /tmp/new
try touch /volume/made
try touch /volume/below/made
try touch /read-only/new
try touch /read-only/below/new
try touch /sealed/new
try touch /sealed/volume/made
cat /file /real/inside/contents
try sh -c 'echo changed >/file'
stat -c '%a' /tmp /new/directory
ls -A / | tr '\n' ' '
echo ==
wc -c </proc/interrupts
ls -A /sys/firmware
try sh -c 'echo x >/proc/sys/kernel/domainname'
grep ' /proc/sys ' /proc/mounts
stat -c '%n %A %t:%T %u:%g' /dev/deep/down /dev/block
true <>/dev/deep/down && echo opened
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn a_root_that_is_read_only_with_volumes_devices_and_hidden_paths() {
    let volume = Volume::new();
    let container = sealed(&volume);
    let done = container.run(Kernel::Lean);
    assert_silent(&done);
    assert_code(&done, 0);
    let text = done.stdout();
    let parts: Vec<Vec<&str>> = text
        .split("==\n")
        .map(|part| part.lines().collect())
        .collect();
    mounted(&parts[0]);
    written(&parts[1]);
    hidden(&parts[2]);

    assert!(volume.path().join("made").exists());
    assert!(volume.below.path().join("made").exists());
    assert_eq!(
        fs::read_to_string(volume.path().join("contents")).unwrap(),
        "changed\n"
    );
    assert!(container.rootfs.join("new/directory").is_dir());
    assert!(
        fs::metadata(container.rootfs.join("file"))
            .unwrap()
            .is_file()
    );
}

/// A directory of the host in which another one is mounted.
struct Volume {
    directory: TempDir,
    below: TempDir,
}

impl Volume {
    fn new() -> Self {
        let [directory, below] = [(); 2].map(|()| TempDir::new_in("/var/tmp").unwrap());
        fs::create_dir(directory.path().join("below")).unwrap();
        fs::write(directory.path().join("contents"), "of the volume\n").unwrap();
        fs::write(below.path().join("contents"), "from below\n").unwrap();
        Self { directory, below }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Lets the host mount the other directory, before the volume becomes one.
    fn prepare(&self, container: &mut Container) {
        container.bind_on_host(self.below.path(), &self.path().join("below"));
    }
}

fn sealed(volume: &Volume) -> Container {
    let mut container = Container::new(SCRIPT);
    let root = |name: &str| container.rootfs.join(name);
    fs::set_permissions(root("tmp"), Permissions::from_mode(0o1711)).unwrap();
    fs::create_dir(root("real")).unwrap();
    // In the guest's root, it does not lead to the host's /real.
    symlink("/real", root("link")).unwrap();

    volume.prepare(&mut container);
    container.mount_file_system("/sys", "sysfs", READ_ONLY);
    let unknown = FileSystem {
        fstype: "nosuchfs".to_owned(),
        ..FileSystem::default()
    };
    container.mount("/unknown", Mountable::Optional(unknown));
    container.mount_file_system("/tmp", "tmpfs", NO_FLAGS);
    container.volume(volume.path(), "/volume", NO_FLAGS);
    container.volume(volume.path(), "/read-only", READ_ONLY);
    container.volume(&volume.path().join("contents"), "/file", NO_FLAGS);
    container.volume(volume.path(), "/link/inside", NO_FLAGS);
    container.mount_file_system("/sealed", "tmpfs", READ_ONLY);
    container.volume(volume.path(), "/sealed/volume", NO_FLAGS);
    container.mount_file_system("/new/directory", "tmpfs", NO_FLAGS);
    let start = &mut container.start;
    start.root.read_only = true;
    start.masked_paths = strings(&["/proc/interrupts", "/sys/firmware", "/proc/no/such"]);
    start.read_only_paths = strings(&["/proc/sys", "/proc/nothing"]);
    start.devices = vec![
        device("/dev/deep/down", false, 10, 200),
        device("/dev/block", true, 254, 3),
    ];
    container
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn device(path: &str, block: bool, major: u32, minor: u32) -> Device {
    Device {
        path: path.to_owned(),
        block,
        major,
        minor,
        mode: 0o662,
        uid: 1000,
        gid: 7,
    }
}

/// The root, and nothing but what was asked for.
#[track_caller]
fn mounted(found: &[&str]) {
    assert_eq!(found[0], "/ virtiofs");
    // The order of the others is the kernel's.
    let found: BTreeSet<&str> = found[1..].iter().copied().collect();
    let expected = [
        "/proc proc",
        "/dev tmpfs",
        "/dev/pts devpts",
        "/sys sysfs",
        "/tmp tmpfs",
        "/volume virtiofs",
        "/read-only virtiofs",
        "/file virtiofs",
        "/real/inside virtiofs",
        "/sealed tmpfs",
        "/sealed/volume virtiofs",
        "/new/directory tmpfs",
        "/proc/sys proc",
        "/proc/interrupts tmpfs",
        "/sys/firmware tmpfs",
    ];
    assert_eq!(found, BTreeSet::from(expected));
}

#[track_caller]
fn written(found: &[&str]) {
    let expected = [
        "touch: /etc/new: Read-only file system",
        "done: touch /tmp/new",
        "done: touch /volume/made",
        "done: touch /volume/below/made",
        "touch: /read-only/new: Read-only file system",
        "touch: /read-only/below/new: Read-only file system",
        "touch: /sealed/new: Read-only file system",
        "done: touch /sealed/volume/made",
        "of the volume",
        "of the volume",
        "done: sh -c echo changed >/file",
        "1711",
        "1777",
        "bin dev etc file link new proc read-only real root sealed sys tmp unknown volume ",
    ];
    assert_eq!(found, expected);
}

#[track_caller]
fn hidden(found: &[&str]) {
    let expected = [
        "0",
        "sh: can't create /proc/sys/kernel/domainname: Read-only file system",
        "proc /proc/sys proc ro,nosuid,nodev,noexec,relatime 0 0",
        "/dev/deep/down crw-rw--w- a:c8 1000:7",
        "/dev/block brw-rw--w- fe:3 1000:7",
        "opened",
    ];
    assert_eq!(found, expected);
}

/// What is left of the share when its own mount is gone: roots and volumes, mounted on the host as
/// they are, are file systems of their own to the guest, which forgets what it knew of them.
#[test]
#[ignore = "boots a guest: make test"]
fn files_stay_there_when_the_guest_forgets_them() {
    const SCRIPT: &str = "for i in 1 2 3; do \
        echo 3 >/proc/sys/vm/drop_caches; cat /volume/contents /volume/below/contents; done; ls /bin | wc -l >/dev/null";
    let volume = Volume::new();
    for kernel in [Kernel::Lean, Kernel::StockCloud] {
        let mut container = Container::new(SCRIPT);
        volume.prepare(&mut container);
        container.volume(volume.path(), "/volume", NO_FLAGS);
        let done = container.run(kernel);
        assert_code(&done, 0);
        assert_silent(&done);
        assert_eq!(done.stdout(), "of the volume\nfrom below\n".repeat(3));
    }
}

/// What the host has mounted in a volume is a mount of its own in the guest, made when it is used.
#[test]
#[ignore = "boots a guest: make test"]
fn a_volumes_options_reach_what_is_mounted_in_it() {
    const SCRIPT: &str = r#"
cat /careful/below/contents
/careful/below/true || echo not executed
awk '$2 ~ "^/careful" { print $2, $4 }' /proc/mounts
"#;
    let volume = Volume::new();
    let mut container = Container::new(SCRIPT);
    fs::copy(
        container.rootfs.join("bin/busybox"),
        volume.below.path().join("true"),
    )
    .unwrap();
    volume.prepare(&mut container);
    let flags = MountFlags {
        nosuid: true,
        nodev: true,
        noexec: true,
        ..NO_FLAGS
    };
    container.volume(volume.path(), "/careful", flags);
    let done = container.run(Kernel::Lean);
    assert_code(&done, 0);
    assert_eq!(
        done.stdout().lines().collect::<Vec<_>>(),
        [
            "from below",
            "not executed",
            "/careful rw,nosuid,nodev,noexec,relatime",
            "/careful/below rw,nosuid,nodev,noexec,relatime",
        ]
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_volume_that_is_missing_is_named() {
    let mut container = Container::new("echo never");
    container.mount(
        "/target",
        Mountable::Bind {
            path: "volumes/7".to_owned(),
            flags: NO_FLAGS,
        },
    );
    let done = container.run(Kernel::Lean);
    assert_code(&done, 1);
    assert_eq!(
        done.stderr(),
        "runq-vmm: /target: bind mount of \"volumes/7\": ENOENT: No such file or directory\n"
    );
}
