//! A root on a disk of the container's.

use super::disks::{add, host_with_files, volume};
use super::*;

fn split_of(config: &Value) -> Split {
    split(config, &Given::new(), &host_with_files()).unwrap()
}

/// A configuration with this disk, whose environment has a root disk.
fn with_root_disk(disk: &str, options: &[&str]) -> Value {
    let mut config = add(config("run"), &[volume("/srv/a.img", disk, options)], &[]);
    for variable in [
        "RUNQ_ROOTDISK=root",
        "RUNQ_ROOTDISK_EXCLUDE=/srv,/var/cache",
    ] {
        push(&mut config["process"]["env"], json!(variable));
    }
    config
}

#[test]
fn the_root_is_on_a_disk_of_the_container() {
    let plain = add(
        config("run"),
        &[volume("/srv/a.img", "/dev/runq/root/none", &[])],
        &[],
    );
    assert_eq!(split_of(&plain).vm.start.root_disk, None);
    let start = split_of(&with_root_disk("/dev/runq/root/none", &[]))
        .vm
        .start;
    let root_disk = start.root_disk.unwrap();
    assert_eq!(root_disk.id, "root");
    assert_eq!(root_disk.exclude, ["/srv", "/var/cache"]);
    assert_eq!(start.disks[0].id, "root");
    assert_eq!(start.root, split_of(&plain).vm.start.root);
}

#[test]
fn a_disk_that_cannot_be_the_root_is_refused() {
    let refusal = |disk, options: &[_]| {
        let config = with_root_disk(disk, options);
        let error = split(&config, &Given::new(), &host_with_files()).unwrap_err();
        format!("{error:#}")
    };
    assert_eq!(
        refusal("/dev/runq/other/none", &[]),
        "RUNQ_ROOTDISK=root: the container has no disk with this ID: give it one, as \
         `--volume FILE:/dev/runq/root/none`"
    );
    assert_eq!(
        refusal("/dev/runq/root/none", &["ro"]),
        "RUNQ_ROOTDISK=root: the disk is read-only, but the image's files are copied to it: leave out `:ro` (or give \
         a `--device` the rights `rwm`)"
    );
    assert_eq!(
        refusal("/dev/runq/root/none/ext4/data", &[]),
        "RUNQ_ROOTDISK=root: the disk is mounted on /data, too: leave out /ext4/data behind its cache mode"
    );
}
