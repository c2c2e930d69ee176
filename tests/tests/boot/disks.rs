//! Disks of `runq-vmm --disk`: in images and on block devices, from inside the guest and on the host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::guest::{Guest, Rootfs};

use crate::{assert_code, assert_silent, busybox};

/// Of what [`numbers`] returns.
const NUMBERS_MD5: &str = "dea9193b768319cbb4ff1a137ac03113";

/// What `seq 100000` prints.
pub(crate) fn numbers() -> String {
    (1..=100_000).map(|number| format!("{number}\n")).collect()
}

pub(crate) const MODES: [&str; 4] = ["none", "writeback", "writethrough", "unsafe"];

/// Runs a program of the host. Returns what it printed.
#[track_caller]
pub(crate) fn host(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let (out, err) = (done.stdout, done.stderr);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let shown = text(&err);
    assert!(done.status.success(), "{program} {args:?}: {shown}");
    text(&out)
}

/// An image with an empty ext4 file system.
fn ext4(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    File::create(&path).unwrap().set_len(16 << 20).unwrap();
    host("mke2fs", &["-q", "-t", "ext4", "-b", "4096", text(&path)]);
    path
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Nothing is wrong with the file system in an image, and no journal has to be replayed.
#[track_caller]
fn assert_clean(image: &Path) {
    host("e2fsck", &["-f", "-n", text(image)]);
}

fn with_disks(guest: Guest, disks: &[String]) -> Guest {
    disks
        .iter()
        .fold(guest, |guest, disk| guest.option("--disk", disk))
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_disk_keeps_what_is_written_in_every_cache_mode() {
    let folder = TempDir::new().unwrap();
    let images = MODES.map(|mode| ext4(&folder, mode));
    let disk = |(mode, path): (&str, &PathBuf)| format!("{},cache={mode},id={mode}", text(path));
    let mut disks: Vec<_> = MODES.into_iter().zip(&images).map(disk).collect();
    let read_only = ext4(&folder, "only-read");
    let before = fs::read(&read_only).unwrap();
    disks.push(format!("{},ro", text(&read_only)));
    let (_rootfs, guest) = busybox();
    let script = r#"
        for disk in vda vdb vdc vdd; do
            cd /sys/block/$disk
            mode=$(cat serial)
            echo $mode $(cat ro) $(cat size) $(cat queue/write_cache)
            mkdir -p /mnt/$mode
            mount -t ext4 /dev/$disk /mnt/$mode
            seq 100000 | tee /mnt/$mode/numbers | md5sum
            umount /mnt/$mode
        done
        cat /sys/block/vde/ro
        mount -t ext4 -o ro,noload /dev/vde /mnt && ls /mnt && umount /mnt
        dd if=/dev/zero of=/dev/vde count=1 2>&1 | grep -o "Operation not permitted"
    "#;
    let done = with_disks(guest, &disks).shell(script).unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    let mut expected = String::new();
    for (mode, cache) in MODES.into_iter().zip(["back", "back", "through", "back"]) {
        expected += &format!("{mode} 0 32768 write {cache}\n{NUMBERS_MD5}  -\n");
    }
    expected += "1\nlost+found\nOperation not permitted\n";
    assert_eq!(done.stdout(), expected);
    for image in &images {
        assert_clean(image);
        assert!(host("debugfs", &["-R", "cat numbers", text(image)]) == numbers());
    }
    assert!(fs::read(&read_only).unwrap() == before);
}

/// A block device of the host's, with blocks of 4096 bytes.
struct Loop(String);

impl Loop {
    fn of(image: &Path) -> Self {
        // A module that is there already, or built in, is none to load.
        let _ = Command::new("modprobe").arg("loop").status();
        let args = ["--find", "--show", "--sector-size", "4096", text(image)];
        Self(host("losetup", &args).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        host("losetup", &["--detach", &self.0]);
    }
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_block_device_is_a_disk() {
    let folder = TempDir::new().unwrap();
    let image = ext4(&folder, "image");
    let device = Loop::of(&image);
    let (_rootfs, guest) = busybox();
    let guest = guest.args(["--cpus", "2"]);
    let guest = guest.option("--disk", format!("{},cache=none", device.0));
    let script = r#"
        cd /sys/block/vda
        echo $(cat size) $(cat queue/logical_block_size) $(ls mq | wc -l)
        busybox mke2fs -b 4096 /dev/vda >/dev/null
        mkdir /mnt
        mount -t ext2 /dev/vda /mnt
        seq 100000 >/mnt/numbers
        umount /mnt
    "#;
    let done = guest.shell(script).unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "32768 4096 2\n");
    assert_clean(&image);
    assert!(host("debugfs", &["-R", "cat numbers", text(&image)]) == numbers());
}

/// One line says what is wrong, before anything runs.
#[test]
#[ignore = "boots a guest: make test"]
fn what_is_no_disk_is_told_before_the_guest_boots() {
    let folder = TempDir::new().unwrap();
    let image = ext4(&folder, "image");
    let device = Loop::of(&image);
    let mounted = folder.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    host("mount", &[&device.0, text(&mounted)]);
    let missing = folder.path().join("missing");
    let cases = [
        (text(&missing), "No such file or directory"),
        (
            text(folder.path()),
            "neither an image file nor a block device",
        ),
        (
            &device.0,
            "in use: it is mounted, or another machine has it",
        ),
    ];
    let results = cases.map(|(disk, expected)| {
        let (_rootfs, guest) = busybox();
        let done = guest.option("--disk", disk).shell("echo never").unwrap();
        (done, disk.to_owned(), expected)
    });
    host("umount", &[text(&mounted)]);
    for (done, disk, expected) in results {
        assert_code(&done, 1);
        let stderr = done.stderr();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            stderr.contains(&format!("disk {disk}: {expected}")),
            "{stderr}"
        );
    }
}

/// Another machine has it: it is refused for as long as that runs.
#[test]
#[ignore = "boots a guest: make test"]
fn an_image_has_one_writer() {
    let folder = TempDir::new().unwrap();
    let image = ext4(&folder, "image");
    let (_rootfs, guest) = busybox();
    let guest = guest.option("--disk", &image).open_stdin();
    let mut first = guest
        .start(["/bin/sh", "-c", "echo up; read line"])
        .unwrap();
    first.wait_for("up\n").unwrap();
    let second = || {
        let (rootfs, guest) = busybox();
        let read_only = format!("{},ro", text(&image));
        (
            guest.option("--disk", read_only).shell("echo up").unwrap(),
            rootfs,
        )
    };
    let (done, _rootfs) = second();
    assert_code(&done, 1);
    assert!(
        done.stderr().contains("in use by another machine"),
        "{done:?}"
    );
    // QEMU is told the same.
    let write = ["-f", "raw", "-c", "write 0 512", text(&image)];
    let qemu = Command::new("qemu-io").args(write).output().unwrap();
    let stderr = String::from_utf8_lossy(&qemu.stderr).into_owned();
    assert!(stderr.contains("Failed to get \"write\" lock"), "{stderr}");
    first.signal(Signal::KILL).unwrap();
    assert_eq!(first.wait().unwrap().signal(), Some(9));
    let (done, _rootfs) = second();
    assert_code(&done, 0);
}

/// The host takes the ground from under the guest: it gets I/O errors, and goes on.
#[test]
#[ignore = "boots a guest: make test"]
fn an_image_that_shrinks_is_an_io_error() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let (_rootfs, guest) = busybox();
    let guest = guest.option("--disk", &image).open_stdin();
    let script = "
        echo up; read line
        dd if=/dev/vda of=/dev/null bs=4k skip=200 count=1 iflag=direct 2>&1 | grep -o 'Input/output error'
        dd if=/dev/vda bs=4k count=1 iflag=direct 2>/dev/null | wc -c
    ";
    let mut running = guest.start(["/bin/sh", "-c", script]).unwrap();
    running.wait_for("up\n").unwrap();
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(4096)
        .unwrap();
    running.write("\n").unwrap();
    let done = running.wait().unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "up\nInput/output error\n4096\n");
}

/// How often the monitor is killed, each time with five disks.
const KILLS: u32 = 10;

/// Writes numbered files to all disks, and prints each number once it is flushed on all of them.
const WRITER: &str = r#"
    for disk in a b c d e; do mkdir -p /mnt/$disk; mount -t ext4 /dev/vd$disk /mnt/$disk; done
    number=0
    while :; do
        number=$((number + 1))
        for disk in a b c d e; do
            echo $number | dd of=/mnt/$disk/$1.$number conv=fsync 2>/dev/null
        done
        echo $number
    done
"#;

/// Writes that were answered after a flush are there after the monitor was killed, whenever that was, and a qcow2
/// image has lost no more than room.
#[test]
#[ignore = "boots a guest: make test"]
fn nothing_that_was_flushed_is_lost_when_the_monitor_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut images = MODES.map(|mode| ext4(&folder, mode)).to_vec();
    let disk = |(mode, path): (&str, &PathBuf)| format!("{},cache={mode}", text(path));
    let mut disks: Vec<_> = MODES.into_iter().zip(&images).map(disk).collect();
    let (raw, qcow2) = (ext4(&folder, "raw"), folder.path().join("qcow2"));
    host(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            text(&raw),
            text(&qcow2),
        ],
    );
    disks.push(text(&qcow2).to_owned());
    let rootfs = Rootfs::new().unwrap();
    let mut acknowledged = Vec::new();
    for kill in 0..KILLS {
        let guest = with_disks(Guest::of(&rootfs).unwrap(), &disks);
        let round = kill.to_string();
        let mut running = guest
            .start(["/bin/sh", "-ec", WRITER, "sh", &round])
            .unwrap();
        // Not always the same moment, and not a different one each time that the tests run.
        running.wait_for(&format!("{}\n", 1 + kill * 2)).unwrap();
        running.signal(Signal::KILL).unwrap();
        let done = running.wait().unwrap();
        assert_eq!(done.signal(), Some(9), "{done:?}");
        // The last line may be cut.
        let text = done.stdout();
        let whole = text.rsplit_once('\n').unwrap().0;
        acknowledged.push(whole.lines().last().unwrap().parse::<u32>().unwrap());
        // Clusters that are used by nobody are code 3 to QEMU, and what is broken is 2.
        let check = ["check", "-q", "-f", "qcow2", qcow2.to_str().unwrap()];
        let code = Command::new("qemu-img")
            .args(check)
            .status()
            .unwrap()
            .code();
        assert!(matches!(code, Some(0 | 3)), "{code:?}");
    }
    host(
        "qemu-img",
        &["convert", "-O", "raw", text(&qcow2), text(&raw)],
    );
    images.push(raw);
    for image in &images {
        assert_has(image, &acknowledged);
    }
}

/// The files of all rounds are there, up to the last that was acknowledged.
#[track_caller]
fn assert_has(image: &Path, acknowledged: &[u32]) {
    // Replays the journal, and finds nothing else to do.
    let _ = Command::new("e2fsck").args(["-p", text(image)]).output();
    assert_clean(image);
    for (round, &last) in acknowledged.iter().enumerate() {
        for number in 1..=last {
            let request = format!("cat {round}.{number}");
            let contents = host("debugfs", &["-R", &request, text(image)]);
            assert_eq!(contents, format!("{number}\n"), "{request} of {image:?}");
        }
    }
}
