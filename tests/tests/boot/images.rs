//! Disks in qcow2 images, and load on disks of all kinds.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tests::guest::{Guest, Kernel};

use crate::disks::{MODES, host, numbers, text};
use crate::{assert_code, assert_silent, busybox};

/// Images by their names, and how qemu-img makes them.
const IMAGES: [(&str, &[&str]); 6] = [
    ("old", &["-o", "compat=0.10"]),
    ("lazy", &["-o", "lazy_refcounts=on"]),
    ("large", &["-o", "cluster_size=2M"]),
    ("small", &["-o", "cluster_size=4k"]),
    ("on-raw", &["-b", "base", "-F", "raw"]),
    ("on-qcow2", &["-b", "compressed", "-F", "qcow2"]),
];

/// Makes an image of 16 MiB, if it does not stand on one.
fn create(folder: &Path, name: &str, options: &[&str]) {
    let path = folder.join(name);
    let size = if options.contains(&"-b") {
        &[][..]
    } else {
        &["16M"]
    };
    let create = ["create", "-q", "-f", "qcow2"];
    host(
        "qemu-img",
        &[&create, options, &[text(&path)], size].concat(),
    );
}

/// File systems in images of all kinds, also over one that is there, are what the guest made of them, and the images are
/// sound to QEMU.
#[test]
#[ignore = "boots a guest: make test"]
fn qcow2_images_are_disks() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let (base, compressed) = (folder.join("base"), folder.join("compressed"));
    fs::write(&base, vec![b'x'; 16 << 20]).unwrap();
    let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2", text(&base)];
    host("qemu-img", &[&convert[..], &[text(&compressed)]].concat());
    let (_rootfs, mut guest) = busybox();
    for (name, options) in IMAGES {
        create(folder, name, options);
        guest = guest.option("--disk", format!("{},id={name}", text(&folder.join(name))));
    }
    let script = r#"
        for disk in /sys/block/vd*; do
            name=$(cat $disk/serial)
            device=/dev/${disk##*/}
            tail -c 4 $device
            busybox mke2fs $device >/dev/null
            mkdir -p /mnt/$name
            mount -t ext2 $device /mnt/$name
            seq 100000 >/mnt/$name/numbers
            dd if=/dev/urandom of=/mnt/$name/gone bs=64k count=64 2>/dev/null
            sync
            rm /mnt/$name/gone
            busybox fstrim /mnt/$name
            umount /mnt/$name
            echo $name $(cat $disk/size)
        done
    "#;
    let done = guest.shell(script).unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    for (name, options) in IMAGES {
        let before = if options.contains(&"-b") {
            "xxxx"
        } else {
            "\0\0\0\0"
        };
        let line = format!("{before}{name} 32768\n");
        assert!(
            done.stdout().contains(&line),
            "{line:?}: {:?}",
            done.stdout()
        );
        let (image, raw) = (folder.join(name), folder.join("raw"));
        host("qemu-img", &["check", "-q", text(&image)]);
        host(
            "qemu-img",
            &["convert", "-O", "raw", text(&image), text(&raw)],
        );
        host("e2fsck", &["-f", "-n", text(&raw)]);
        assert!(host("debugfs", &["-R", "cat numbers", text(&raw)]) == numbers());
    }
    // What others stand on is as it was.
    assert!(fs::read(&base).unwrap() == vec![b'x'; 16 << 20]);
    host(
        "qemu-img",
        &["compare", "-q", text(&base), text(&compressed)],
    );
}

/// A disk may be larger than the host's file system.
#[test]
#[ignore = "boots a guest: make test"]
fn an_image_is_as_small_as_what_is_in_it() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("image");
    host(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", text(&image), "100T"],
    );
    let (_rootfs, guest) = busybox();
    let script = "
        cat /sys/block/vda/size
        last=$(($(cat /sys/block/vda/size) * 512 / 4096 - 1))
        echo the end | dd of=/dev/vda bs=4k seek=$last conv=sync,fsync 2>/dev/null
        dd if=/dev/vda bs=4k skip=$last 2>/dev/null | head -c 8
    ";
    let done = guest.option("--disk", &image).shell(script).unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "214748364800\nthe end\n");
    assert!(fs::metadata(&image).unwrap().len() < 1 << 30);
    host("qemu-img", &["check", "-q", text(&image)]);
}

/// What is read is what was written before, in every mode, one request at a time and 32 at once. fio runs in the guest from
/// the root of the host, which has it.
#[test]
#[ignore = "boots a guest: make test"]
fn load_is_verified() {
    let folder = TempDir::new().unwrap();
    let (kernel, initrd) = Kernel::Lean.files().unwrap();
    let guest = Guest::bare().unwrap().option("--rootfs", "/");
    let mut guest = guest.option("--kernel", kernel).option("--initrd", initrd);
    let qcow2 = folder.path().join("qcow2");
    host(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", text(&qcow2), "16M"],
    );
    for mode in MODES {
        let path = folder.path().join(mode);
        fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
        guest = guest.option("--disk", format!("{},cache={mode}", text(&path)));
    }
    let guest = guest.option("--disk", &qcow2);
    let mut jobs = String::from("set -e\n");
    for disk in ["vda", "vdb", "vdc", "vdd", "vde"] {
        for depth in [1, 32] {
            jobs += &format!(
                "fio --name=check --filename=/dev/{disk} --direct=1 --ioengine=libaio --iodepth={depth} --rw=randrw \
                 --bsrange=4k-256k --size=8m --io_size=4m --verify=crc32c --verify_fatal=1 --fsync=16 --minimal \
                 >/dev/null && echo {disk} {depth}\n"
            );
        }
    }
    let done = guest.shell(&jobs).unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout().lines().count(), 10, "{done:?}");
    host("qemu-img", &["check", "-q", text(&qcow2)]);
}
