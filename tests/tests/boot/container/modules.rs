//! The kernel's modules: on /lib/modules, and for disks whose file systems are among them.

use std::fs::File;

use proto::{Disk, DiskMount};
use tempfile::TempDir;
use tests::guest::{Guest, Kernel, payload};

use super::Container;
use crate::disks::{host, text};
use crate::{assert_code, assert_silent};

/// An image with a file system.
struct Image {
    folder: TempDir,
    fstype: &'static str,
}

impl Image {
    fn new(fstype: &'static str, mib: u64, options: &[&str]) -> Self {
        let folder = TempDir::new_in("/var/tmp").unwrap();
        let image = Self { folder, fstype };
        let path = image.folder.path().join("image");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        let options = [&["-q"], options, &[text(&path)]].concat();
        host(&format!("mkfs.{fstype}"), &options);
        image
    }

    fn xfs() -> Self {
        // What a kernel of 5.15 knows, any guest's does.
        let conf = "options=/usr/share/xfsprogs/mkfs/lts_5.15.conf";
        Self::new("xfs", 300, &["-c", conf])
    }

    /// As the guest gets it, mounted on a directory with the name of its file system.
    fn disk(&self) -> Disk {
        Disk {
            id: self.fstype.to_owned(),
            serial: self.fstype.to_owned(),
            read_only: false,
            mount: Some(DiskMount {
                fstype: self.fstype.to_owned(),
                target: format!("/{}", self.fstype),
            }),
        }
    }

    fn add_to(&self, guest: Guest) -> Guest {
        let path = self.folder.path().join("image");
        guest.option("--disk", format!("{},id={}", text(&path), self.fstype))
    }
}

const SCRIPT: &str = r#"
awk '$1 ~ "^/dev/vd" { print $2, $3 }' /proc/mounts
for disk in xfs btrfs; do echo $disk >/$disk/file; cat /$disk/file; done
[ "$(ls /lib/modules)" = "$(uname -r)" ] && echo "of this kernel"
awk '$2 == "/lib/modules" { split($4, o, ","); print $3, o[1], o[2], o[3], o[4] }' /proc/mounts
touch /lib/modules/x 2>&1
grep -c '^dummy ' /proc/modules
modprobe dummy && grep -c '^dummy ' /proc/modules
"#;

/// The checksums of the one are not among those that every kernel has.
#[test]
#[ignore = "boots a guest: make test"]
fn disks_are_mounted_by_modules_which_the_command_finds_as_well() {
    let images = [
        Image::xfs(),
        Image::new("btrfs", 128, &["--csum", "xxhash"]),
    ];
    let mut container = Container::new(SCRIPT);
    container.start.disks = images.iter().map(Image::disk).collect();
    let mut guest = container.guest(Kernel::Lean);
    for image in &images {
        guest = image.add_to(guest);
    }
    let guest = guest.option("--modules", payload("modules").unwrap());
    let done = guest.launch().unwrap().wait().unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    assert_eq!(
        done.stdout(),
        "/xfs xfs\n/btrfs btrfs\nxfs\nbtrfs\nof this kernel\nvirtiofs ro nosuid nodev noexec\n\
         touch: /lib/modules/x: Read-only file system\n0\n1\n"
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_file_system_that_the_kernel_does_not_have_is_told_in_one_line() {
    let image = Image::xfs();
    let cases = [
        (Kernel::Lean, false, "its modules are not at hand"),
        // These are those of the other kernel.
        (Kernel::StockCloud, true, "its modules: /lib/modules/6."),
    ];
    for (kernel, modules, expected) in cases {
        let mut container = Container::new("echo never");
        container.start.disks.push(image.disk());
        let mut guest = image.add_to(container.guest(kernel));
        if modules {
            guest = guest.option("--modules", payload("modules").unwrap());
        }
        let done = guest.launch().unwrap().wait().unwrap();
        assert_code(&done, 1);
        let stderr = done.stderr();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let begin = "disk xfs: mount xfs on /xfs: the kernel 6.";
        assert!(
            stderr.contains(begin) && stderr.contains(expected),
            "{stderr}"
        );
    }
}
