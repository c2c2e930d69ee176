//! Shared directories, from inside the guest and on the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tests::guest::{Guest, Rootfs, payload};
use tests::pattern::{Digest, Pattern};

use crate::{assert_code, assert_silent};

/// The copy of 200 MiB and the 10,000 files take their time in an emulated host.
const LONG: Duration = Duration::from_secs(600);

fn fscheck() -> (Rootfs, Guest) {
    let rootfs = Rootfs::new().unwrap().with_fscheck().unwrap();
    for name in ["mnt", "mnt/first", "mnt/second", "check"] {
        fs::create_dir(rootfs.join(name)).unwrap();
    }
    let guest = Guest::of(&rootfs).unwrap();
    (rootfs, guest)
}

/// The names of all checks, from the same program run on the host.
pub(crate) fn all_checks() -> BTreeSet<String> {
    let list = Command::new(payload("fscheck").unwrap())
        .arg("list")
        .output()
        .unwrap();
    assert!(list.status.success());
    let names: BTreeSet<String> = String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(names.len() >= 17, "{names:?}");
    names
}

/// Asserts that every line is `ok NAME`, and gives the names.
#[track_caller]
pub(crate) fn passed(text: &str) -> BTreeSet<String> {
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("ok "))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    text.lines()
        .filter_map(|line| line.strip_prefix("ok "))
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_root_behaves_like_a_file_system() {
    let (rootfs, guest) = fscheck();
    let done = guest
        .args(["--cpus", "2"])
        .timeout(LONG)
        .run([
            "/bin/fscheck",
            "check",
            "/check",
            "--size",
            "200",
            "--files",
            "10000",
        ])
        .unwrap();
    assert_code(&done, 0);
    assert_eq!(passed(&done.stdout()), all_checks());
    assert_silent(&done);
    assert_eq!(
        fs::read_dir(rootfs.join("check")).unwrap().count(),
        0,
        "all is removed on the host"
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_large_file_of_the_host_is_copied_by_the_guest() {
    const SIZE: u64 = 200 << 20;
    let (rootfs, guest) = fscheck();
    let mut file = fs::File::create(rootfs.join("large")).unwrap();
    std::io::copy(&mut std::io::Read::take(Pattern::new(9), SIZE), &mut file).unwrap();
    let done = guest
        .timeout(LONG)
        .shell("cp /large /copy && rm /large")
        .unwrap();
    assert_code(&done, 0);
    assert_silent(&done);
    assert!(!rootfs.join("large").exists());
    let copy = fs::File::open(rootfs.join("copy")).unwrap();
    let expected = Digest::of(std::io::Read::take(Pattern::new(9), SIZE)).unwrap();
    assert_eq!(Digest::of(copy).unwrap(), expected);
}

const SEVERAL: &str = r#"
set -e
mount -t virtiofs first /mnt/first
mount -t virtiofs second /mnt/second
! mount -t virtiofs third /mnt 2>/dev/null
fscheck check /mnt/first
echo from the guest >/mnt/first/made
mknod /mnt/first/node c 1 3
chmod 6754 /mnt/first/made
fscheck as 1000:1000 create /mnt/first/of-alice
fscheck read-only /mnt/second
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn several_shares_one_of_them_for_reading_only() {
    let (_rootfs, guest) = fscheck();
    let (first, second) = (
        TempDir::new_in("/var/tmp").unwrap(),
        TempDir::new_in("/var/tmp").unwrap(),
    );
    fs::set_permissions(first.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let prepared = Command::new(payload("fscheck").unwrap())
        .arg("prepare")
        .arg(second.path())
        .status()
        .unwrap();
    assert!(prepared.success());

    let done = guest
        .option("--share", format!("first={}", first.path().display()))
        .option("--share", format!("second={}:ro", second.path().display()))
        .timeout(LONG)
        .shell(SEVERAL)
        .unwrap();
    let names = passed(&done.stdout());
    assert!(names.is_superset(&all_checks()), "{names:?}");
    assert!(
        names.contains("setxattr") && names.contains("mkdir"),
        "{names:?}"
    );
    assert_code(&done, 0);

    let made = fs::metadata(first.path().join("made")).unwrap();
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o7777),
        (0, 0, 0o6754)
    );
    assert_eq!(
        fs::read_to_string(first.path().join("made")).unwrap(),
        "from the guest\n"
    );
    let of_alice = fs::metadata(first.path().join("of-alice")).unwrap();
    assert_eq!((of_alice.uid(), of_alice.gid()), (1000, 1000));
    assert_eq!(
        fs::metadata(first.path().join("node")).unwrap().rdev(),
        0x103
    );
    assert_eq!(
        fs::read_dir(second.path()).unwrap().count(),
        3,
        "nothing has changed"
    );
}

/// Each of the waits looks first, so that the guest has the old state in its caches when the host
/// changes it; how long it may show that is the share's attribute timeout.
const WATCH: &str = r#"
set -e
fscheck await /watched/new --contents fresh --within 10
fscheck await /watched/changed --contents after --within 10
fscheck await /watched/removed --gone --within 10
fscheck await /watched/old-name --gone --within 10
[ "$(cat /watched/new-name)" = moved ]
ls /watched | tr '\n' ' '
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn changes_on_the_host_are_seen_in_the_guest() {
    let (rootfs, guest) = fscheck();
    let watched = rootfs.join("watched");
    fs::create_dir(&watched).unwrap();
    for (name, contents) in [
        ("changed", "before"),
        ("removed", "x"),
        ("old-name", "moved"),
    ] {
        fs::write(watched.join(name), contents).unwrap();
    }
    let mut guest = guest.start(["/bin/sh", "-c", WATCH]).unwrap();
    guest.wait_for("watching /watched/new\n").unwrap();
    // Complete when it appears.
    fs::write(rootfs.join("tmp/new"), "fresh").unwrap();
    fs::rename(rootfs.join("tmp/new"), watched.join("new")).unwrap();
    guest.wait_for("watching /watched/changed\n").unwrap();
    fs::write(watched.join("changed"), "after").unwrap();
    guest.wait_for("watching /watched/removed\n").unwrap();
    fs::remove_file(watched.join("removed")).unwrap();
    guest.wait_for("watching /watched/old-name\n").unwrap();
    fs::rename(watched.join("old-name"), watched.join("new-name")).unwrap();
    let done = guest.wait().unwrap();
    assert_code(&done, 0);
    assert!(
        done.stdout().ends_with("changed new new-name "),
        "{}",
        done.stdout()
    );
}

const LOCKS: &str = r#"
fscheck check /check flock locks-of-processes locks-of-descriptions || exit 1
timeout 1 fscheck lock /locked && exit 2
echo interrupted
fscheck lock /locked
"#;

#[test]
#[ignore = "boots a guest: make test"]
fn locks_are_the_hosts() {
    let (rootfs, guest) = fscheck();
    fs::write(rootfs.join("locked"), "").unwrap();
    let open = || fs::File::open(rootfs.join("locked")).unwrap();
    let file = open();
    file.lock().unwrap();
    let mut guest = guest.start(["/bin/sh", "-c", LOCKS]).unwrap();
    guest.wait_for("interrupted\nwaiting\n").unwrap();
    file.unlock().unwrap();
    guest.wait_for("has it\n").unwrap();
    assert!(file.try_lock().is_err(), "the guest has it");
    guest.signal(rustix::process::Signal::KILL).unwrap();
    guest.wait().unwrap();
    open().lock().unwrap();
}
