use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn request(path: &str) -> Request {
    parse(path).unwrap().unwrap()
}

fn error(path: &str) -> String {
    parse(path).unwrap().unwrap_err().to_string()
}

#[test]
fn a_path_has_an_id_a_cache_mode_and_perhaps_a_mount() {
    assert_eq!(
        request("/dev/runq/data/none"),
        Request {
            id: "data".into(),
            cache: Cache::None,
            mount: None
        }
    );
    assert_eq!(
        request("/dev/runq/A-z_0/writethrough/ext4/var/lib/data"),
        Request {
            id: "A-z_0".into(),
            cache: Cache::Writethrough,
            mount: Some(DiskMount {
                fstype: "ext4".into(),
                target: "/var/lib/data".into()
            })
        }
    );
}

#[test]
fn paths_that_nobody_has_cleaned_are_cleaned() {
    let mounted = request("/dev/runq/data/unsafe/xfs/mnt");
    for path in [
        "dev//runq/./data/unsafe/xfs//mnt/",
        "/x/../dev/runq/data/unsafe/xfs/srv/../mnt",
        "/dev/runq/../runq/data/unsafe/xfs/mnt/.",
    ] {
        assert_eq!(request(path), mounted, "{path}");
    }
    assert!(parse("/dev/runq/../../etc").is_none());
    // The mount point's dots cannot name another ID or file system.
    assert!(error("/dev/runq/data/none/ext4/../../../mnt").contains("the cache mode is missing"));
}

#[test]
fn other_paths_are_no_disks() {
    for path in [
        "/",
        "/dev",
        "/dev/run",
        "/dev/runq2/data/none",
        "/runq/data/none",
        "",
    ] {
        assert!(parse(path).is_none(), "{path}");
    }
}

#[test]
fn each_part_that_is_wrong_is_named_with_what_is_allowed() {
    let long = "x".repeat(37);
    let long_path = format!("/dev/runq/{long}/none");
    for (path, told) in [
        (
            "/dev/runq",
            "the disk's ID is missing: /dev/runq/ID/CACHE or /dev/runq/ID/CACHE/FSTYPE/MOUNTPOINT is a \
             disk's path",
        ),
        (
            "/dev/runq/a.b/none",
            "disk ID \"a.b\": 1 to 36 of a-z, A-Z, 0-9, - and _ are allowed",
        ),
        (
            &long_path,
            &format!("disk ID {long:?}: 1 to 36 of a-z, A-Z, 0-9, - and _ are allowed"),
        ),
        (
            "/dev/runq/data/",
            "the cache mode is missing, as in /dev/runq/data/CACHE: writeback, writethrough, none, \
             unsafe are allowed",
        ),
        (
            "/dev/runq/data/ext4/mnt",
            "cache mode \"ext4\": writeback, writethrough, none, unsafe are allowed",
        ),
        (
            "/dev/runq/data/none/ntfs/mnt",
            "file system type \"ntfs\": ext2, ext3, ext4, xfs, btrfs are allowed",
        ),
        (
            "/dev/runq/data/none/ext4",
            "the mount point is missing behind ext4: any absolute path but / is allowed",
        ),
        (
            "/dev/runq/data/none/ext4/",
            "the mount point is missing behind ext4: any absolute path but / is allowed",
        ),
        (
            "/dev/runq/data/none/ext4/proc",
            "mount point /proc: any absolute path but /, /dev, /proc, /sys is allowed",
        ),
    ] {
        assert_eq!(error(path), format!("{path}: {told}"));
    }
    assert_eq!(
        error("/dev/runq/a\nb/none"),
        "/dev/runq/a\\nb/none: disk ID \"a\\nb\": 1 to 36 of a-z, A-Z, 0-9, - and _ are allowed"
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        id in "[a-zA-Z0-9_-]{1,36}",
        cache in select(Cache::ALL.to_vec()),
        mount in proptest::option::of((select(FSTYPES.to_vec()), "(/[a-z][a-z0-9. ]{3,9}){1,4}")),
    ) {
        let mount = mount.map(|(fstype, target)| DiskMount { fstype: fstype.into(), target });
        let rest = mount.as_ref().map(|mount| format!("/{}{}", mount.fstype, mount.target));
        let path = format!("/dev/runq/{id}/{cache}{}", rest.unwrap_or_default());
        prop_assert_eq!(parse(&path).unwrap().unwrap(), Request { id, cache, mount });
    }

    #[test]
    fn whatever_is_below_the_folder_is_a_disk_or_refused_on_one_line(rest in "(?s).{0,60}") {
        let path = format!("/dev/runq/{rest}");
        match parse(&path) {
            None => {
                let cleaned = clean(&path);
                prop_assert!(cleaned != FOLDER && !cleaned.starts_with("/dev/runq/"), "{}", cleaned);
            }
            Some(Ok(request)) => {
                prop_assert!((1..=MAX_ID).contains(&request.id.len()));
                prop_assert!(!request.id.contains(['/', '.']));
                if let Some(mount) = request.mount {
                    prop_assert_eq!(clean(&mount.target), &*mount.target);
                    prop_assert!(mount.target != "/");
                }
            }
            Some(Err(error)) => {
                let text = error.to_string();
                prop_assert!(!text.contains('\n'), "{}", text);
            }
        }
    }
}
