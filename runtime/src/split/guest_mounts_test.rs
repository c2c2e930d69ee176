use serde_json::json;

use super::*;

fn mount(destination: &str, kind: &str, options: &[&str]) -> oci::Mount {
    let mount = json!({"destination": destination, "type": kind, "options": options});
    serde_json::from_value(mount).unwrap()
}

fn one(mount: oci::Mount) -> Option<Mount> {
    let mut mounts = translate(&[mount], false).unwrap();
    assert!(mounts.len() <= 1);
    mounts.pop()
}

#[test]
fn what_init_makes_is_left_out() {
    assert_eq!(one(mount("/proc", "proc", &["nosuid"])), None);
    assert_eq!(one(mount("/dev/", "tmpfs", &["size=1m"])), None);
    assert_eq!(one(mount("/dev/pts", "devpts", &["gid=5"])), None);
}

#[test]
fn a_tmpfs_keeps_its_own_options_and_loses_those_of_others() {
    let options = [
        "nosuid",
        "rprivate",
        "strictatime",
        "tmpcopyup",
        "size=64k",
        "mode=1777",
    ];
    let translated = one(mount("/run/x/", "tmpfs", &options)).unwrap();
    assert_eq!(translated.target, "/run/x");
    assert_eq!(
        translated.what,
        Mountable::FileSystem(FileSystem {
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
            flags: MountFlags {
                nosuid: true,
                ..Default::default()
            },
            data: "size=64k,mode=1777".into(),
            access_times: AccessTimes {
                strictatime: true,
                ..Default::default()
            },
        })
    );
}

#[test]
fn of_two_options_the_later_one_counts() {
    let options = ["ro", "noexec", "nodev", "rw", "exec", "nosuid"];
    let flags = Sorted::of(&mount("/x", "tmpfs", &options)).flags;
    assert_eq!(
        flags,
        MountFlags {
            nodev: true,
            nosuid: true,
            ..Default::default()
        }
    );
    let options = [
        "noatime",
        "atime",
        "nodiratime",
        "strictatime",
        "nostrictatime",
        "relatime",
    ];
    let times = Sorted::of(&mount("/x", "tmpfs", &options)).times;
    assert_eq!(
        (times.noatime, times.nodiratime, times.strictatime),
        (false, true, false)
    );
    let options = ["rw", "rro", "rnosuid", "rnodev", "rnoexec"];
    let flags = Sorted::of(&mount("/x", "tmpfs", &options)).flags;
    assert!(flags.read_only && flags.nosuid && flags.nodev && flags.noexec);
}

#[test]
fn control_groups_are_version_2_and_may_be_missing() {
    let Some(Mount {
        what: Mountable::Optional(what),
        ..
    }) = one(mount("/sys/fs/cgroup", "cgroup", &["ro", "private"]))
    else {
        panic!("not optional");
    };
    assert_eq!(what.fstype, "cgroup2");
    assert!(what.flags.read_only);
    let mounts = [mount("/sys/fs/cgroup", "cgroup", &[])];
    assert_eq!(translate(&mounts, true).unwrap(), []);
}

#[test]
fn volumes_are_numbered_among_themselves() {
    let mounts = [
        mount("/a", "bind", &["ro"]),
        mount("/t", "tmpfs", &[]),
        mount("/dev", "bind", &["rbind"]),
    ];
    let translated = translate(&mounts, false).unwrap();
    let shown: Vec<_> = translated
        .iter()
        .filter_map(|mount| match &mount.what {
            Mountable::Bind { path, flags } => {
                Some((mount.target.as_str(), path.as_str(), flags.read_only))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        shown,
        [("/a", "volumes/0", true), ("/dev", "volumes/1", false)]
    );
}

#[test]
fn a_file_system_of_the_host_cannot_be_had() {
    let error = translate(&[mount("/data", "nfs", &[])], false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mounts: /data: a file system of type \"nfs\" cannot be had in a VM"
    );
}
