//! Mounts and devices that are disks of the VM.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proto::DiskMount;
use runtime::chain::Image;
use runtime::host::FileKind;
use runtime::vmspec;
use vmm::disk::Cache;

use super::*;

/// A host on which there are an image, a block device, and what is neither.
pub(super) fn host_with_files() -> Host {
    let block = FileKind::Block { major: 7, minor: 3 };
    let image = |name: &str| {
        let name = name.to_owned();
        let backing = Vec::new();
        Ok(FileKind::Regular(Image { name, backing }))
    };
    let files = [
        ("/srv/a.img", image("a.img")),
        ("/run/bundle/b.img", image("b.img")),
        ("/dev/loop3", Ok(block)),
        ("/srv/folder", Ok(FileKind::Directory)),
        ("/dev/null", Ok(FileKind::Other)),
        (
            "/srv/nothing",
            Err("No such file or directory (os error 2)".to_owned()),
        ),
    ];
    Host {
        files: files.map(|(path, kind)| (path.to_owned(), kind)).into(),
        ..host()
    }
}

pub(super) fn volume(source: &str, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

pub(super) fn block(path: &str, major: u32, minor: u32) -> Value {
    json!({"path": path, "type": "b", "major": major, "minor": minor, "fileMode": 432, "gid": 6})
}

fn with(mounts: &[Value], devices: &[Value]) -> Value {
    add(config("run"), mounts, devices)
}

/// A configuration with these mounts and devices, and the rules that Docker makes for devices.
pub(super) fn add(mut config: Value, mounts: &[Value], devices: &[Value]) -> Value {
    for mount in mounts {
        push(&mut config["mounts"], mount.clone());
    }
    for device in devices {
        push(&mut config["linux"]["devices"], device.clone());
        let (major, minor) = (&device["major"], &device["minor"]);
        let rule =
            json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": "rwm"});
        push(&mut config["linux"]["resources"]["devices"], rule);
    }
    config
}

fn split_of(config: &Value) -> Split {
    split(config, &Given::new(), &host_with_files()).unwrap()
}

#[track_caller]
fn refused(config: &Value) -> String {
    let error = split(config, &Given::new(), &host_with_files()).unwrap_err();
    let text = format!("{error:#}");
    assert!(!text.contains('\n'), "{text}");
    text
}

/// What is at the monitor's places for disks.
pub(super) fn places(split: &Split) -> Vec<Value> {
    let mounts = split.runc["mounts"].as_array().unwrap().iter();
    let nodes = split.runc["linux"]["devices"].as_array().unwrap().iter();
    let is_place = |value: &&Value| {
        value
            .as_str()
            .is_some_and(|path| path.starts_with("/dev/disks/"))
    };
    let mounts = mounts.filter(|mount| Some(&mount["destination"]).filter(is_place).is_some());
    let nodes = nodes.filter(|node| Some(&node["path"]).filter(is_place).is_some());
    mounts.chain(nodes).cloned().collect()
}

fn block_rules(split: &Split) -> Vec<Value> {
    let rules = split.runc["linux"]["resources"]["devices"]
        .as_array()
        .unwrap();
    rules
        .iter()
        .filter(|rule| rule["type"] == "b")
        .cloned()
        .collect()
}

#[test]
fn an_image_is_the_monitors_file_and_the_guests_disk() {
    let plain = split_of(&config("run"));
    let path = "/dev/runq/data/writethrough/ext4/var/lib/data";
    let split = split_of(&with(
        &[volume("/srv/a.img", path, &["rbind", "rprivate"])],
        &[],
    ));
    assert_eq!(
        split.vm.disks,
        [vmspec::Disk {
            name: "data (/srv/a.img)".into(),
            path: "/dev/disks/0/a.img".into(),
            serial: "runq-0".into(),
            cache: Cache::Writethrough,
            read_only: false,
        }]
    );
    assert_eq!(
        split.vm.start.disks,
        [proto::Disk {
            id: "data".into(),
            serial: "runq-0".into(),
            read_only: false,
            mount: Some(DiskMount {
                fstype: "ext4".into(),
                target: "/var/lib/data".into(),
            }),
        }]
    );
    assert_eq!(
        places(&split),
        [json!({
            "destination": "/dev/disks/0/a.img", "type": "bind", "source": "/srv/a.img",
            "options": ["bind", "rprivate", "nosuid", "noexec", "nodev"],
        })]
    );
    // It is nothing else: no volume, no node, no device that anybody may use.
    assert_eq!(targets(&split), targets(&plain));
    assert_eq!(split.vm.start.devices, plain.vm.start.devices);
    assert!(block_rules(&split).is_empty());
    let mut mounts = split.runc["mounts"].clone();
    mounts.as_array_mut().unwrap().pop();
    assert_eq!(mounts, plain.runc["mounts"]);
    assert!(plain.vm.disks.is_empty() && plain.vm.start.disks.is_empty());
}

#[test]
fn the_monitor_may_use_a_block_device_as_far_as_the_guest_may() {
    for (options, read_only, access) in [
        (&["rbind"][..], false, "rwm"),
        (&["rbind", "ro"], true, "rm"),
        (&["ro", "rw"], false, "rwm"),
    ] {
        let split = split_of(&with(
            &[volume("/dev/loop3", "/dev/runq/d/none", options)],
            &[],
        ));
        let disk = &split.vm.disks[0];
        assert_eq!(
            (disk.read_only, split.vm.start.disks[0].read_only),
            (read_only, read_only)
        );
        let options = &places(&split)[0]["options"];
        assert_eq!(
            options.as_array().unwrap().contains(&"ro".into()),
            read_only
        );
        assert!(!options.to_string().contains("nodev"));
        assert_eq!(
            block_rules(&split),
            [json!({"allow": true, "type": "b", "major": 7, "minor": 3, "access": access})]
        );
    }
}

#[test]
fn a_device_is_the_monitors_node_and_not_the_guests() {
    let config = with(
        &[],
        &[
            block("/dev/runq/z/none/xfs/z", 8, 16),
            block("/dev/sr0", 11, 0),
            block("/dev/runq/a/unsafe", 259, 4),
        ],
    );
    let split = split_of(&config);
    let node = |path: &str, major: u32, minor: u32| {
        json!({
            "path": path, "type": "b", "major": major, "minor": minor, "fileMode": 0o600, "uid": 0, "gid": 0,
        })
    };
    assert_eq!(
        places(&split),
        [
            node("/dev/disks/0/device", 8, 16),
            node("/dev/disks/1/device", 259, 4)
        ]
    );
    let rule = |major: u32, minor: u32| json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": "rwm"});
    assert_eq!(block_rules(&split), [rule(8, 16), rule(259, 4)]);
    let names: Vec<_> = split
        .vm
        .disks
        .iter()
        .map(|disk| disk.name.as_str())
        .collect();
    assert_eq!(names, ["z (block device 8:16)", "a (block device 259:4)"]);
    let nodes = split
        .vm
        .start
        .devices
        .iter()
        .map(|device| device.path.as_str());
    assert_eq!(nodes.collect::<Vec<_>>(), ["/dev/sr0"]);
}

#[test]
fn a_device_that_may_not_be_written_is_a_read_only_disk() {
    for (access, read_only) in [("r", true), ("rm", true), ("rw", false), ("rwm", false)] {
        let config = changed(|config| {
            push(
                &mut config["linux"]["devices"],
                block("/dev/runq/a/none", 8, 16),
            );
            for (minor, access) in [(0, "rwm"), (16, access), (32, "r")] {
                let rule = json!({"allow": true, "type": "b", "major": 8, "minor": minor, "access": access});
                push(&mut config["linux"]["resources"]["devices"], rule);
            }
        });
        assert_eq!(
            split_of(&config).vm.disks[0].read_only,
            read_only,
            "{access}"
        );
    }
}

/// Docker has volumes in another order at each start.
#[test]
fn volumes_are_in_the_order_of_their_ids_and_devices_follow_in_theirs() {
    let mounts = [
        volume("/srv/a.img", "/dev/runq/m/none/ext4/a/b", &[]),
        volume("b.img", "/dev/runq/k/none", &[]),
        volume("/dev/loop3", "/dev/runq/l/none", &[]),
    ];
    let devices = [
        block("/dev/runq/z/none", 8, 0),
        block("/dev/runq/b/none", 8, 16),
    ];
    let mut turned = mounts.clone();
    turned.reverse();
    for mounts in [mounts, turned] {
        let split = split_of(&with(&mounts, &devices));
        let ids: Vec<_> = split
            .vm
            .start
            .disks
            .iter()
            .map(|disk| disk.id.as_str())
            .collect();
        assert_eq!(ids, ["k", "l", "m", "z", "b"]);
        let serials: Vec<_> = split
            .vm
            .disks
            .iter()
            .map(|disk| disk.serial.as_str())
            .collect();
        assert_eq!(serials, ["runq-0", "runq-1", "runq-2", "runq-3", "runq-4"]);
        let sources: Vec<_> = places(&split)[..3]
            .iter()
            .map(|place| place["source"].clone())
            .collect();
        assert_eq!(sources, ["/run/bundle/b.img", "/dev/loop3", "/srv/a.img"]);
    }
}

#[test]
fn what_is_no_disk_on_the_host_is_refused() {
    let path = "/dev/runq/d/none";
    for (source, told) in [
        (
            "/srv/folder",
            "the directory /srv/folder is no disk: a file or a block device is allowed (Docker makes a directory \
             where there is nothing: remove it, and make the disk's file)",
        ),
        (
            "/dev/null",
            "/dev/null is neither a file nor a block device, which a disk has to be",
        ),
        (
            "/srv/nothing",
            "/srv/nothing: No such file or directory (os error 2)",
        ),
    ] {
        let config = with(&[volume(source, path, &["rbind"])], &[]);
        assert_eq!(refused(&config), format!("{path}: {told}"));
    }
    let tmpfs = json!({"destination": path, "type": "tmpfs", "source": "tmpfs"});
    assert_eq!(
        refused(&with(&[tmpfs], &[])),
        "/dev/runq/d/none: a disk is a file or a block device of the host, by --volume or --device, and no mount of \
         type \"tmpfs\""
    );
    let character = json!({"path": path, "type": "c", "major": 1, "minor": 3});
    let config = changed(|config| push(&mut config["linux"]["devices"], character));
    assert_eq!(
        refused(&config),
        "/dev/runq/d/none: this is no block device (its type is \"c\"), which a disk has to be"
    );
}

#[test]
fn a_wrong_path_is_refused_as_a_volume_and_as_a_device() {
    let path = "/dev/runq/d/fast";
    let told =
        "/dev/runq/d/fast: cache mode \"fast\": writeback, writethrough, none, unsafe are allowed";
    assert_eq!(
        refused(&with(&[volume("/srv/a.img", path, &[])], &[])),
        told
    );
    assert_eq!(refused(&with(&[], &[block(path, 8, 0)])), told);
}

#[test]
fn two_disks_have_no_id_and_no_mount_point_in_common() {
    let config = with(
        &[volume("/srv/a.img", "/dev/runq/d/none", &[])],
        &[block("/dev/runq/d/unsafe", 8, 0)],
    );
    assert_eq!(
        refused(&config),
        "disk ID \"d\": two disks (/dev/runq/d/...) have it: each needs one of its own"
    );
    let config = with(
        &[volume("/srv/a.img", "/dev/runq/a/none/ext4/mnt", &[])],
        &[block("/dev/runq/b/unsafe/xfs//mnt/", 8, 0)],
    );
    assert_eq!(
        refused(&config),
        "mount point /mnt: two disks have it, disk \"b\" and one before: each needs one of its own"
    );
}

#[test]
fn sixteen_disks_are_the_most() {
    let disks = |count: u32| {
        let disks = (0..count).map(|number| block(&format!("/dev/runq/{number}/none"), 8, number));
        with(&[], &Vec::from_iter(disks))
    };
    assert_eq!(split_of(&disks(16)).vm.disks.len(), 16);
    assert_eq!(
        refused(&disks(17)),
        "17 disks (/dev/runq/...): a container can have 16 at most"
    );
}

proptest! {
    /// Each disk has one place on the host, one serial number, and one entry of the guest's.
    #[test]
    fn all_sides_are_of_one_mind(
        disks in proptest::collection::btree_map(
            "[a-zA-Z0-9_-]{1,36}",
            (any::<bool>(), any::<bool>(), select(Cache::ALL.to_vec()), any::<Index>()),
            0..=16,
        ),
    ) {
        let (mut mounts, mut devices) = (Vec::new(), Vec::new());
        for (id, (is_device, read_only, cache, which)) in &disks {
            let path = format!("/dev/runq/{id}/{cache}/ext4/{id}");
            if *is_device {
                devices.push(block(&path, 8, u32::try_from(devices.len()).unwrap()));
            } else {
                let source = which.get(&["/srv/a.img", "b.img", "/dev/loop3"]);
                let options: &[&str] = if *read_only { &["ro"] } else { &[] };
                mounts.push(volume(source, &path, options));
            }
        }
        let split = split_of(&with(&mounts, &devices));
        prop_assert_eq!(split.vm.disks.len(), disks.len());
        prop_assert_eq!(places(&split).len(), disks.len());
        for (number, (host, guest)) in split.vm.disks.iter().zip(&split.vm.start.disks).enumerate() {
            let (is_device, read_only, cache, _) = disks[&guest.id];
            prop_assert_eq!(&host.serial, &guest.serial);
            prop_assert!(host.serial.len() <= vmm::disk::MAX_SERIAL);
            prop_assert_eq!(host.cache, cache);
            prop_assert_eq!((host.read_only, guest.read_only), (read_only && !is_device, read_only && !is_device));
            let folder = PathBuf::from(format!("/dev/disks/{number}"));
            prop_assert_eq!(host.path.parent(), Some(&*folder));
            let begin = format!("{} (", guest.id);
            prop_assert!(host.name.starts_with(&begin));
            let target = guest.mount.as_ref().map(|mount| mount.target.clone());
            prop_assert_eq!(target, Some(format!("/{}", guest.id)));
        }
    }
}
