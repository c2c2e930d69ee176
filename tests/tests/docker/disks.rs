//! Disks: files and devices of the host's at /dev/runq/ID/CACHE.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::TempDir;
use tests::docker::{Container, script};

use crate::refusals::refused;
use crate::{assert_code, assert_output};

/// Files that become disks, on a file system that knows O_DIRECT.
pub(crate) struct Images(TempDir);

impl Images {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// An empty file of so many MiB.
    pub(crate) fn blank(&self, name: &str, mib: u64) -> String {
        let path = self.path(name);
        fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
        path
    }

    /// A file with a file system that this program makes.
    pub(crate) fn formatted(&self, name: &str, mib: u64, mkfs: &str) -> String {
        let path = self.blank(name, mib);
        script(&format!("{mkfs} {path}")).unwrap();
        path
    }
}

/// A loop device of the host's.
struct Loop(String);

impl Loop {
    fn new(image: &str) -> Self {
        let name = script(&format!("modprobe loop; losetup --find --show {image}"));
        Self(name.unwrap())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = script(&format!("losetup -d {}", self.0));
    }
}

/// Asserts that an ext4 file system was unmounted, and is as it should be.
#[track_caller]
pub(crate) fn assert_clean(image: &str) {
    let features = script(&format!("dumpe2fs -h {image} 2>/dev/null | grep features")).unwrap();
    assert!(!features.contains("needs_recovery"), "{image}: {features}");
    script(&format!("e2fsck -f -n {image}")).unwrap();
}

/// What is mounted of a disk, with the options that all file systems know.
const MOUNTED: &str = r#"
awk '$1 ~ "^/dev/vd" { split($4, o, ","); print $1, $2, $3, o[1], o[2], o[3] }' /proc/mounts | sort
"#;

const USE: &str = r#"
set -e
for link in /dev/disk/by-runq-id/*; do echo "$link $(readlink $link)"; done
stat -L -c '%a %u:%g %F' /dev/disk/by-runq-id/*
for serial in /sys/block/vd?/serial; do echo "serial $(cat $serial)"; done
cat /var/lib/data/below/x
echo kept >/var/lib/data/file
echo xfs >/xfs/file
echo btrfs >/btrfs/file
"#;

/// With a volume below a disk, and one that an image might declare where the disk is.
#[test]
#[ignore = "needs Docker: make test"]
fn file_systems_of_images_are_mounted_and_what_is_written_stays() {
    let images = Images::new();
    let ext4 = images.formatted("ext4.img", 64, "mke2fs -q -F -t ext4");
    // What a kernel of 5.15 knows, any guest's does.
    let conf = "/usr/share/xfsprogs/mkfs/lts_5.15.conf";
    let xfs = images.formatted("xfs.img", 300, &format!("mkfs.xfs -q -c options={conf}"));
    let btrfs = images.formatted("btrfs.img", 128, "mkfs.btrfs -q");
    fs::create_dir(images.path("below")).unwrap();
    fs::write(images.path("below/x"), "below a disk\n").unwrap();
    let ext4_at = format!("{ext4}:/dev/runq/data/writeback/ext4/var/lib/data");
    let xfs_at = format!("{xfs}:/dev/runq/xfs-1/none/xfs/xfs");
    let btrfs_at = format!("{btrfs}:/dev/runq/b_2/writethrough/btrfs/btrfs");
    let below = format!("{}:/var/lib/data/below", images.path("below"));
    let options = [
        ["-v", &xfs_at],
        ["-v", &ext4_at],
        ["-v", &btrfs_at],
        ["-v", &below],
        ["-v", "/var/lib/data"],
    ];
    let options = [&["--rm"][..], options.as_flattened()].concat();
    let first = Container::new().unwrap();
    let done = first.shell(&options, &format!("{USE}{MOUNTED}")).unwrap();
    assert_output(
        &done,
        "/dev/disk/by-runq-id/b_2 ../../vda\n/dev/disk/by-runq-id/data ../../vdb\n\
         /dev/disk/by-runq-id/xfs-1 ../../vdc\n\
         660 0:6 block special file\n660 0:6 block special file\n660 0:6 block special file\n\
         serial runq-0\nserial runq-1\nserial runq-2\nbelow a disk\n\
         /dev/vda /btrfs btrfs rw nosuid nodev\n/dev/vdb /var/lib/data ext4 rw nosuid nodev\n\
         /dev/vdc /xfs xfs rw nosuid nodev\n",
    );
    assert_clean(&ext4);
    let file = script(&format!("debugfs -R 'cat /file' {ext4} 2>/dev/null")).unwrap();
    assert_eq!(file, "kept");

    let second = Container::new().unwrap();
    let read = "cat /var/lib/data/file /xfs/file /btrfs/file";
    let done = second.shell(&options, read).unwrap();
    assert_output(&done, "kept\nxfs\nbtrfs\n");
}

const READ_ONLY: &str = r#"
cat /mnt/file
(echo x >/mnt/file) 2>&1
cat /sys/block/vda/ro /sys/block/vdb/ro
readlink /dev/disk/by-runq-id/loop
wc -c </dev/disk/by-runq-id/loop
stat -c '%n %a %u:%g' /dev/vdb1
head -c 14 /dev/vdb1
printf 'from the guest' | dd of=/dev/disk/by-runq-id/loop bs=512 seek=1 conv=notrunc,fsync 2>/dev/null
ls -d /dev/runq 2>/dev/null
exit 0
"#;

#[test]
#[ignore = "needs Docker: make test"]
fn a_read_only_image_and_a_device_with_a_partition() {
    let images = Images::new();
    let ext4 = images.formatted("ext4.img", 16, "mke2fs -q -F -t ext4");
    fs::write(images.path("file"), "as it was\n").unwrap();
    let from = images.path("file");
    script(&format!(
        "debugfs -w -R 'write {from} file' {ext4} 2>/dev/null"
    ))
    .unwrap();
    let before = script(&format!("sha256sum {ext4}")).unwrap();
    let disk = images.blank("disk.img", 5);
    partition(Path::new(&disk));
    let device = Loop::new(&disk);

    let container = Container::new().unwrap();
    let image_at = format!("{ext4}:/dev/runq/data/none/ext4/mnt:ro");
    let device_at = format!("{}:/dev/runq/loop/unsafe", device.0);
    let options = ["--rm", "-v", &image_at, "--device", &device_at];
    let done = container
        .shell(&options, &format!("{MOUNTED}{READ_ONLY}"))
        .unwrap();
    assert_output(
        &done,
        "/dev/vda /mnt ext4 ro nosuid nodev\nas it was\n\
         sh: can't create /mnt/file: Read-only file system\n1\n0\n../../vdb\n5242880\n\
         /dev/vdb1 660 0:6\nin a partition",
    );
    assert_eq!(script(&format!("sha256sum {ext4}")).unwrap(), before);
    let read = format!(
        "dd if={} bs=512 skip=1 count=1 2>/dev/null | head -c 14",
        device.0
    );
    assert_eq!(script(&read).unwrap(), "from the guest");
}

/// Writes a partition table of the PC's kind: sector 2048 and 2048 more, of which the first begins with a text.
fn partition(disk: &Path) {
    let mut file = fs::File::options().write(true).open(disk).unwrap();
    let mut write = |offset, bytes: &[u8]| {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(bytes).unwrap();
    };
    // Status, first sector as CHS, type, last sector as CHS; then where it begins and how long it is.
    write(446, &[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    write(510, &[0x55, 0xaa]);
    write(2048 * 512, b"in a partition");
}

/// The container is not started at all, but by its last step.
#[test]
#[ignore = "needs Docker: make test"]
fn a_disk_is_unmounted_even_if_the_command_is_not_there() {
    let images = Images::new();
    let ext4 = images.formatted("ext4.img", 16, "mke2fs -q -F -t ext4");
    let volume = format!("{ext4}:/dev/runq/data/writeback/ext4/mnt");
    let container = Container::new().unwrap();
    let call = container
        .docker_run()
        .args(["--rm", "--network", "none", "-v", &volume])
        // Only the machine finds out what is in a volume.
        .args(["-v", "/var/tmp:/elsewhere"]);
    let done = call
        .args(["busybox", "/elsewhere/nothing"])
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_code(&done, 127);
    assert_clean(&ext4);

    let blank = images.blank("blank.img", 16);
    let volume = format!("{blank}:/dev/runq/data/writeback/ext4/mnt");
    let container = Container::new().unwrap();
    let done = container
        .shell(&["--rm", "--network", "none", "-v", &volume], "true")
        .unwrap();
    // As runc, of which a mount fails.
    assert_code(&done, 125);
    let told = "disk data: mount ext4 on /mnt (there is no such file system on the disk";
    assert_eq!(done.stderr().matches(told).count(), 1, "{done:?}");
}

#[test]
#[ignore = "needs Docker: make test"]
fn what_is_no_disk_is_refused() {
    let images = Images::new();
    let image = images.blank("disk.img", 1);
    // Without a network, whose making is most of the time.
    let refused = |options: &[&str], expected: &[&str]| {
        refused(&[&["--network", "none"], options].concat(), expected);
    };
    let nothing = format!("{}:/dev/runq/data/none", images.path("nothing"));
    refused(
        &["-v", &nothing],
        &["/dev/runq/data/none", "is no disk", "Docker makes"],
    );
    let mode = format!("{image}:/dev/runq/data/fast");
    refused(
        &["-v", &mode],
        &["/dev/runq/data/fast", "cache mode", "writethrough"],
    );
    let fstype = format!("{image}:/dev/runq/data/none/ntfs/mnt");
    refused(&["-v", &fstype], &["ntfs", "ext2, ext3, ext4, xfs, btrfs"]);
    let device = "/dev/null:/dev/runq/data/none";
    refused(
        &["--device", device],
        &["/dev/runq/data/none", "no block device"],
    );
    let twice = [
        &format!("{image}:/dev/runq/data/none"),
        &format!("{image}:/dev/runq/data/unsafe"),
    ];
    refused(&["-v", twice[0], "-v", twice[1]], &["disk ID", "two disks"]);
}
