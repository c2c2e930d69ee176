use tempfile::TempDir;

use super::*;

/// A /sys/block with files of these paths and contents.
fn sys_block(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    folder
}

fn numbers(block: &Block) -> Vec<(&str, u32, u32)> {
    let nodes = block.nodes.iter();
    nodes
        .map(|node| (node.path.as_str(), node.major, node.minor))
        .collect()
}

fn disk(serial: &str) -> Disk {
    Disk {
        id: "data".into(),
        serial: serial.into(),
        read_only: false,
        mount: None,
    }
}

#[test]
fn disks_are_found_in_order_with_their_partitions() {
    let folder = sys_block(&[
        ("vdaa/dev", "254:416\n"),
        ("vdb/dev", "254:16\n"),
        ("vdb/serial", "runq-1"),
        ("vdb/queue/vdb", "no partition's number"),
        ("vdb/vdb10/dev", "254:26\n"),
        ("vdb/vdb2/dev", "254:18\n"),
        ("vda/dev", "254:0\n"),
        ("vda/serial", "runq-0\n"),
        ("loop0/dev", "7:0\n"),
        ("sr0/dev", "11:0\n"),
    ]);
    let blocks = find(folder.path()).unwrap();
    let found = blocks
        .iter()
        .map(|block| (block.name.as_str(), block.serial.as_str()));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [("vda", "runq-0"), ("vdb", "runq-1"), ("vdaa", "")]
    );
    assert_eq!(numbers(&blocks[0]), [("/dev/vda", 254, 0)]);
    assert_eq!(
        numbers(&blocks[1]),
        [
            ("/dev/vdb", 254, 16),
            ("/dev/vdb2", 254, 18),
            ("/dev/vdb10", 254, 26)
        ]
    );
    let node = &blocks[0].nodes[0];
    assert!(node.block);
    assert_eq!((node.mode, node.uid, node.gid), (0o660, 0, 6));
}

#[test]
fn a_kernel_without_disks_has_none() {
    assert_eq!(find(Path::new("/nonexistent")).unwrap(), []);
    let folder = sys_block(&[("loop0/dev", "7:0\n")]);
    assert_eq!(find(folder.path()).unwrap(), []);
}

#[test]
fn what_is_no_device_number_is_an_error() {
    for text in ["", "254", "254:", ":0", "254:0:1", "-1:0", "254:4294967296"] {
        let folder = sys_block(&[("vda/dev", text)]);
        let error = format!("{:#}", find(folder.path()).unwrap_err());
        assert!(
            error.contains("vda/dev") && error.contains("no device number"),
            "{error}"
        );
    }
}

#[test]
fn a_disk_is_known_by_its_serial_number() {
    let folder = sys_block(&[
        ("vda/dev", "254:0\n"),
        ("vda/serial", "runq-10"),
        ("vdb/dev", "254:16\n"),
        ("vdb/serial", "runq-1"),
    ]);
    let blocks = find(folder.path()).unwrap();
    assert_eq!(named(&disk("runq-1"), &blocks).unwrap().name, "vdb");
    assert_eq!(named(&disk("runq-10"), &blocks).unwrap().name, "vda");
    assert_eq!(
        named(&disk("runq-2"), &blocks).unwrap_err().to_string(),
        "disk data: the guest's kernel has found no disk with the serial number runq-2 (it needs virtio_blk)"
    );
}

#[test]
fn a_mount_that_fails_names_the_disk_and_what_to_do() {
    for (errno, told) in [
        (Errno::EINVAL, "mkfs.xfs"),
        (Errno::ENODEV, "/modules"),
        (Errno::EROFS, "without `:ro`"),
        (Errno::EUCLEAN, "fsck.xfs"),
    ] {
        assert!(hint(errno, "xfs").contains(told), "{errno}");
    }
    assert_eq!(hint(Errno::ENOMEM, "xfs"), "");
    let wanted = DiskMount {
        fstype: "nosuchfs".into(),
        target: "/data".into(),
    };
    let error = mount(&disk("runq-0"), &wanted, "null", None).err().unwrap();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("disk data: mount nosuchfs on /data"),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn a_link_may_be_there_but_not_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let path = path.to_str().unwrap();
    link("../../vda", path).unwrap();
    link("../../vda", path).unwrap();
    assert_eq!(fs::read_link(path).unwrap(), Path::new("../../vda"));
    let error = format!("{:#}", link("../../vdb", path).unwrap_err());
    assert!(
        error.starts_with(&format!("link {path} to ../../vdb: File exists")),
        "{error}"
    );
}
