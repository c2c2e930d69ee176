//! Shares by 9P, in each of the cache modes: the programs that check virtio-fs check this, too.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tests::guest::{Guest, Kernel, Rootfs, payload};

use crate::shares::{all_checks, passed};
use crate::{assert_code, assert_silent};

const LONG: Duration = Duration::from_secs(500);

/// What Linux' 9P client does not have in any mode.
const REFUSED: &[&str] = &["fallocate", "punch-hole", "rename-exchange"];

/// Checks all of the root directory with this cache, but what it does not have, and looks how it is mounted.
#[track_caller]
fn check(cache: &str, refused: &[&str], shown: &[&str]) {
    let rootfs = Rootfs::new().unwrap().with_fscheck().unwrap();
    fs::create_dir(rootfs.join("check")).unwrap();
    let refused: String = REFUSED
        .iter()
        .chain(refused)
        .map(|name| format!(" --refused {name}"))
        .collect();
    let script = format!(
        "grep -o ' / 9p .*' /proc/mounts && fscheck check /check --size 8 --files 300{refused}"
    );
    let done = Guest::of(&rootfs)
        .unwrap()
        .option("--9pcache", cache)
        .timeout(LONG)
        .shell(&script)
        .unwrap();
    let stdout = done.stdout();
    let (mounted, checked) = stdout.split_once('\n').unwrap();
    assert_eq!(passed(checked), all_checks());
    assert_code(&done, 0);
    assert_silent(&done);
    assert_eq!(fs::read_dir(rootfs.join("check")).unwrap().count(), 0);
    let mut options = mounted
        .split([',', ' '])
        .filter(|option| option.starts_with("cache="));
    let option = options.next().unwrap_or("cache=");
    let cache = option.strip_prefix("cache=").unwrap();
    assert!(shown.contains(&cache), "{mounted}");
}

/// Linux names a mode, since 6.4 by its bits (fs/9p/v9fs.h).
#[test]
#[ignore = "boots a guest: make test"]
fn the_root_without_a_cache_is_a_file_system() {
    check("none", &["mmap-shared"], &["", "none"]);
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_root_with_a_cache_is_a_file_system() {
    check("loose", &[], &["loose", "0xf"]);
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_root_with_a_cache_for_fscache_is_a_file_system() {
    check("fscache", &[], &["fscache", "0x8f"]);
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_root_with_a_cache_for_mmap_is_a_file_system() {
    check("mmap", &[], &["mmap", "0x5"]);
}

const SEVERAL: &str = r#"
set -e
options=trans=virtio,version=9p2000.L,posixacl
mount -t 9p -o $options first /mnt/first
mount -t 9p -o $options second /mnt/second
! mount -t 9p -o $options third /mnt 2>/dev/null
echo from the guest >/mnt/first/made
mknod /mnt/first/node c 1 3
chmod 6754 /mnt/first/made
fscheck as 1000:1000 create /mnt/first/of-alice
fscheck read-only /mnt/second
(while :; do echo line; done | head -c 100000 >>/mnt/first/log) & 
fscheck await /mnt/first/new --contents fresh --within 10
wait
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn several_shares_one_of_them_for_reading_only() {
    let rootfs = Rootfs::new().unwrap().with_fscheck().unwrap();
    for name in ["mnt", "mnt/first", "mnt/second"] {
        fs::create_dir(rootfs.join(name)).unwrap();
    }
    let [first, second] = [(); 2].map(|()| TempDir::new_in("/var/tmp").unwrap());
    fs::set_permissions(first.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let prepared = Command::new(payload("fscheck").unwrap())
        .arg("prepare")
        .arg(second.path())
        .status()
        .unwrap();
    assert!(prepared.success());
    let mut guest = Guest::of(&rootfs)
        .unwrap()
        .option("--9pcache", "none")
        .option("--share", format!("first={}", first.path().display()))
        .option("--share", format!("second={}:ro", second.path().display()))
        .timeout(LONG)
        .start(["/bin/sh", "-c", SEVERAL])
        .unwrap();
    guest.wait_for("watching /mnt/first/new\n").unwrap();
    fs::write(first.path().join("hidden"), "fresh").unwrap();
    fs::rename(first.path().join("hidden"), first.path().join("new")).unwrap();
    let done = guest.wait().unwrap();
    assert_code(&done, 0);

    let metadata = |name: &str| fs::metadata(first.path().join(name)).unwrap();
    let made = metadata("made");
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o7777),
        (0, 0, 0o6754)
    );
    let of_alice = metadata("of-alice");
    assert_eq!((of_alice.uid(), of_alice.gid()), (1000, 1000));
    assert_eq!(metadata("node").rdev(), 0x103);
    assert_eq!(metadata("log").len(), 100_000);
    assert_eq!(
        fs::read_dir(second.path()).unwrap().count(),
        3,
        "nothing has changed"
    );
}

/// One of Debian's kernels has 9P as modules, the other one has none.
#[test]
#[ignore = "boots a guest: make test"]
fn other_kernels_have_9p_or_say_that_they_have_not() {
    let run = |kernel| {
        let rootfs = Rootfs::new().unwrap();
        let guest = Guest::with(kernel, &rootfs)
            .unwrap()
            .option("--9pcache", "loose");
        guest.shell("grep -c ' / 9p ' /proc/mounts").unwrap()
    };
    let done = run(Kernel::Stock);
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "1\n");
    let done = run(Kernel::StockCloud);
    assert_ne!(done.code(), Some(0), "{done:?}");
    let stderr = done.stderr();
    assert!(stderr.contains("mount 9p root"), "{stderr}");
    assert!(stderr.contains("do not have this file system"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
