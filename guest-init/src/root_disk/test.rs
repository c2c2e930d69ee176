use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::geteuid;
use rustix::fs::{
    AtFlags, CWD, FileType, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr,
    makedev, mknodat, utimensat,
};
use tempfile::TempDir;

use super::*;

/// A capability of a file: cap_net_raw=ep, version 2 (linux/capability.h, struct vfs_cap_data).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list with a further user (linux/posix_acl_xattr.h).
fn access_list() -> Vec<u8> {
    let none = u32::MAX;
    let entries = [
        (1_u16, 7_u16, none),
        (2, 5, 1234),
        (4, 5, none),
        (16, 5, none),
        (32, 0, none),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn wanted(exclude: &[&str]) -> RootDisk {
    RootDisk {
        id: "root".into(),
        exclude: exclude.iter().map(ToString::to_string).collect(),
    }
}

/// Fills a directory in place of a disk.
fn fill_from(image: &TempDir, disk: &TempDir, exclude: &[&str]) -> Result<()> {
    let open = |folder: &TempDir| OwnedFd::from(File::open(folder.path()).unwrap());
    let mut nobody = |_, _| {};
    let progress = Progress::new(&mut nobody);
    fill(&open(disk), &open(image), &wanted(exclude), progress)
}

/// Two directories, unless this user cannot make all that images have.
fn folders() -> Option<(TempDir, TempDir)> {
    if !geteuid().is_root() {
        eprintln!("skipped: owners and devices need root");
        return None;
    }
    let folder = || tempfile::tempdir_in("/var/tmp").unwrap();
    Some((folder(), folder()))
}

fn set(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn make_files(top: &Path) {
    for number in 0..10_u32 {
        let folder = top.join(format!("d{number}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..8_u32 {
            let path = folder.join(format!("f{file}"));
            let size = [0, 1, 4095, 4096, 70_000, (1 << 20) + 3][(number + file) as usize % 6];
            let byte = u8::try_from(number * 8 + file).unwrap();
            fs::write(&path, vec![byte; size]).unwrap();
            chown(&path, Some(1000 + number), Some(2000 + file)).unwrap();
            let mode = [0o644, 0o4755, 0o2711, 0, 0o1777, 0o6555, 0o600, 0o7000][file as usize];
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            set(&path, "user.number", &[byte; 3]);
        }
        chown(&folder, Some(number), Some(number + 1)).unwrap();
        let mode = [0o755, 0o2775, 0o1777, 0o500][number as usize % 4];
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    }
}

fn make_special_files(top: &Path) {
    set(&top.join("d1/f0"), "security.capability", &CAPABILITY);
    set(&top.join("d1/f1"), "trusted.x", b"");
    set(
        &top.join("d1/f2"),
        "system.posix_acl_access",
        &access_list(),
    );
    set(&top.join("d2"), "system.posix_acl_default", &access_list());
    fs::hard_link(top.join("d3/f3"), top.join("d4/link")).unwrap();
    fs::hard_link(top.join("d3/f3"), top.join("link")).unwrap();
    for (name, to) in [("absolute", "/etc/passwd"), ("d5/dangling", "../no/such")] {
        symlink(to, top.join(name)).unwrap();
        lchown(top.join(name), Some(7), Some(8)).unwrap();
    }
    fs::hard_link(top.join("absolute"), top.join("d6/absolute")).unwrap();
    fs::write(top.join(OsStr::from_bytes(b"d7/\xff\n\"")), "odd").unwrap();
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("loop", FileType::BlockDevice, makedev(7, 300)),
    ] {
        mknodat(CWD, top.join(name), kind, Mode::RWXU, device).unwrap();
    }
    let sparse = File::create(top.join("sparse")).unwrap();
    sparse.write_all_at(b"data", 4 << 20).unwrap();
    sparse.set_len(16 << 20).unwrap();
    let deep: PathBuf = (0..50).map(|_| "deep").collect();
    fs::create_dir_all(top.join(&deep)).unwrap();
    fs::write(top.join(deep).join("file"), "deep").unwrap();
}

/// Times that no look at the files changes, as a read is not noted again before they are past.
fn set_times(files: &[PathBuf]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for (number, path) in (1..).zip(files) {
        let time = |seconds: i64, tv_nsec| Timespec {
            tv_sec: seconds + number,
            tv_nsec,
        };
        let times = Timestamps {
            last_access: time(now.as_secs().cast_signed() + 3600, 123_456_789),
            last_modification: time(1_000_000_000, 987_654_321),
        };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// All paths, those in a directory before it.
fn paths(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(paths(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.push(top.to_owned());
    found
}

/// Everything of a file: attributes in words, and contents.
fn describe(path: &Path) -> (Vec<String>, Vec<u8>) {
    let file = fs::symlink_metadata(path).unwrap();
    let mut words = vec![
        format!("mode {:o}", file.mode()),
        format!("owner {}:{}", file.uid(), file.gid()),
        format!("links {}", file.nlink()),
        format!("device {}", file.rdev()),
        format!("accessed {}.{}", file.atime(), file.atime_nsec()),
        format!("modified {}.{}", file.mtime(), file.mtime_nsec()),
    ];
    let mut names = vec![0; 4096];
    let length = llistxattr(path, names.as_mut_slice()).unwrap();
    for name in names[..length].split(|byte| *byte == 0) {
        if !name.is_empty() {
            let mut value = vec![0; 4096];
            let length = lgetxattr(path, name, value.as_mut_slice()).unwrap();
            let name = String::from_utf8_lossy(name);
            words.push(format!("{name} {:?}", &value[..length]));
        }
    }
    words.sort();
    let contents = if file.is_file() {
        fs::read(path).unwrap()
    } else if file.is_symlink() {
        fs::read_link(path)
            .unwrap()
            .into_os_string()
            .into_encoded_bytes()
    } else {
        Vec::new()
    };
    (words, contents)
}

fn describe_all(top: &Path) -> BTreeMap<PathBuf, (Vec<String>, Vec<u8>)> {
    let mut paths = paths(top);
    paths.retain(|path| !path.ends_with(".runq-rootdisk"));
    let relative = |path: &PathBuf| path.strip_prefix(top).unwrap().to_owned();
    paths
        .iter()
        .map(|path| (relative(path), describe(path)))
        .collect()
}

fn inode(path: PathBuf) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn a_hundred_files_are_copied_with_all_that_they_have() {
    let Some((image, disk)) = folders() else {
        return;
    };
    make_files(image.path());
    make_special_files(image.path());
    set_times(&paths(image.path()));
    let before = describe_all(image.path());
    assert!(before.len() > 100, "{}", before.len());
    fill_from(&image, &disk, &[]).unwrap();

    let after = describe_all(disk.path());
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    for (path, (words, contents)) in &before {
        assert_eq!(after[path].0, *words, "{}", path.display());
        assert!(after[path].1 == *contents, "{}", path.display());
    }
    let at = |name: &str| disk.path().join(name);
    assert_eq!(inode(at("d3/f3")), inode(at("d4/link")));
    assert_eq!(inode(at("d3/f3")), inode(at("link")));
    assert_eq!(inode(at("absolute")), inode(at("d6/absolute")));
    let blocks = fs::metadata(at("sparse")).unwrap().blocks();
    assert!(blocks <= 64, "{blocks} sectors for 4 bytes");
}

#[test]
fn what_the_guest_mounts_and_what_is_excluded_is_not_copied() {
    let Some((image, disk)) = folders() else {
        return;
    };
    let at = |name: &str| image.path().join(name);
    for folder in [
        "dev/shm",
        "proc/1",
        "sys/block",
        "usr/lib/modules/6.1",
        "usr/lib/x",
        "lost+found/y",
        "srv/data/deep",
        "srv/kept",
        "home/dev",
    ] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    symlink("/usr/lib", at("lib")).unwrap();
    symlink("usr", at("alias")).unwrap();
    fs::write(at("dev/file"), "").unwrap();
    fs::write(at("srv/file"), "").unwrap();
    fs::write(at("usr/file"), "").unwrap();
    fs::write(at(".runq-rootdisk"), "not this one").unwrap();
    fs::set_permissions(at("proc"), Permissions::from_mode(0o555)).unwrap();
    fs::create_dir(disk.path().join("lost+found")).unwrap();

    let exclude = ["/srv/data", "/srv/file", "/alias/file", "/no/such", "/"];
    fill_from(&image, &disk, &exclude).unwrap();
    let mut left: Vec<_> = paths(disk.path())
        .iter()
        .map(|path| path.strip_prefix(disk.path()).unwrap().to_owned())
        .collect();
    left.sort();
    let expected = [
        "",
        ".runq-rootdisk",
        "alias",
        "dev",
        "home",
        "home/dev",
        "lib",
        "lost+found",
        "proc",
        "srv",
        "srv/data",
        "srv/kept",
        "sys",
        "usr",
        "usr/lib",
        "usr/lib/modules",
        "usr/lib/x",
    ];
    assert_eq!(left, expected.map(PathBuf::from));
    let proc = fs::metadata(disk.path().join("proc")).unwrap();
    assert_eq!(proc.mode() & 0o777, 0o555);
}

#[test]
fn a_copy_is_made_once_and_one_that_was_interrupted_starts_over() {
    let Some((image, disk)) = folders() else {
        return;
    };
    let at = |name: &str| disk.path().join(name);
    let marker = at(".runq-rootdisk");
    fs::write(image.path().join("file"), "of the image").unwrap();
    fill_from(&image, &disk, &[]).unwrap();
    assert_eq!(fs::read(&marker).unwrap(), COMPLETE);

    fs::write(at("file"), "of the container").unwrap();
    fs::write(at("other"), "").unwrap();
    fill_from(&image, &disk, &[]).unwrap();
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "of the container");
    assert!(at("other").exists());

    fs::write(&marker, BEGUN).unwrap();
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::write(at("a/b/c/file"), "").unwrap();
    fs::create_dir_all(at("lost+found/found")).unwrap();
    symlink("/etc", at("a/b/link")).unwrap();
    set(disk.path(), "system.posix_acl_default", &access_list());
    fill_from(&image, &disk, &[]).unwrap();
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "of the image");
    assert!(!at("a").exists() && !at("other").exists());
    assert!(at("lost+found/found").exists() && Path::new("/etc/passwd").exists());
    assert_eq!(fs::read(&marker).unwrap(), COMPLETE);
    let names = llistxattr(at("file"), &mut [0; 100][..]).unwrap();
    assert_eq!(names, 0, "an attribute that the image's file has not");
}

#[test]
fn files_that_are_no_copy_are_never_removed() {
    let Some((image, disk)) = folders() else {
        return;
    };
    let at = |name: &str| disk.path().join(name);
    fs::write(at("precious"), "data").unwrap();
    for text in [None, Some(""), Some("runq root disk 2: copying\n")] {
        if let Some(text) = text {
            fs::write(at(".runq-rootdisk"), text).unwrap();
        }
        let error = format!("{:#}", fill_from(&image, &disk, &[]).unwrap_err());
        assert!(error.starts_with("there are files on it"), "{error}");
    }
    fs::remove_file(at(".runq-rootdisk")).unwrap();
    symlink("precious", at(".runq-rootdisk")).unwrap();
    let error = format!("{:#}", fill_from(&image, &disk, &[]).unwrap_err());
    assert!(error.starts_with("open its /.runq-rootdisk"), "{error}");
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "data");

    // Power was cut before the first sign was written.
    fs::remove_file(at("precious")).unwrap();
    fs::remove_file(at(".runq-rootdisk")).unwrap();
    fs::write(at(".runq-rootdisk"), "").unwrap();
    fill_from(&image, &disk, &[]).unwrap();
}

#[test]
fn other_file_systems_than_ext2_to_ext4_are_told_from_them() {
    let disk = tempfile::tempfile().unwrap();
    assert!(!is_ext(&disk).unwrap());
    disk.set_len(4096).unwrap();
    assert!(!is_ext(&disk).unwrap());
    disk.write_all_at(&[0x53, 0xef], 1080).unwrap();
    assert!(is_ext(&disk).unwrap());
}

#[test]
fn a_disk_that_is_full_is_too_small() {
    let folder = tempfile::tempdir().unwrap();
    let disk = OwnedFd::from(File::open(folder.path()).unwrap());
    let mut nobody = |_, _| {};
    let mut progress = Progress::new(&mut nobody);
    progress.file();
    progress.bytes(3 << 20);
    let full = anyhow!(Errno::NOSPC).context("copy /file");
    let error = explain(full, &disk, &progress).to_string();
    assert!(error.starts_with("too small for the image"), "{error}");
    assert!(error.contains("full after 1 files and 3 MiB"), "{error}");
    assert!(error.contains("RUNQ_ROOTDISK_EXCLUDE"), "{error}");
    let other = anyhow!(Errno::IO).context("copy /file");
    assert_eq!(
        format!("{:#}", explain(other, &disk, &progress)),
        "copy /file: Input/output error (os error 5)"
    );
}
