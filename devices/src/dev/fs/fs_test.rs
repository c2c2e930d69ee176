//! Shares, with the test as their guest.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::{tempdir, tempdir_in};
use virtiofsd::fuse::Opcode;

use super::guest_test::{Guest, REQUESTS, ROOT, request, wait, words};
use super::*;
use crate::dev::share::Reminder;
use crate::device::VirtioDevice;

#[test]
fn files_are_read_and_written_in_both_directions() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("from-host"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), false, "files");
    guest.mount();
    let node = guest.lookup("from-host").unwrap();
    let handle = guest.open(node);
    assert_eq!(guest.read(node, handle), b"hello");
    assert_eq!(guest.lookup("nothing"), Err(libc::ENOENT));

    let (node, handle) = guest.create("from-guest").unwrap();
    guest.write(node, handle, b"hi");
    assert_eq!(fs::read(share.path().join("from-guest")).unwrap(), b"hi");
    fs::write(share.path().join("from-guest"), "changed").unwrap();
    assert_eq!(guest.read(node, handle), b"changed");
}

#[test]
fn the_guest_acts_as_its_users_without_a_umask_and_the_process_does_not_change() {
    let share = tempdir().unwrap();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let before = process_state();
    let mut guest = Guest::new(share.path(), false, "users");
    guest.mount();
    guest.uid = 1234;
    guest.create("mine").unwrap();
    let metadata = fs::metadata(share.path().join("mine")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 1234));
    assert_eq!(metadata.mode() & 0o777, 0o666);
    assert_eq!(process_state(), before);
}

/// Umask, capabilities and user of the thread that asks.
fn process_state() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let kept = |line: &&str| {
        ["Umask", "Cap", "Uid", "Gid"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    status.lines().filter(kept).map(str::to_owned).collect()
}

#[test]
fn threads_keep_no_more_privileges_than_they_need() {
    let share = tempdir().unwrap();
    let _guest = Guest::new(share.path(), false, "privileges");
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let statuses = tasks.map(|task| task.unwrap().path().join("status"));
    let mut found = 0;
    for status in statuses.filter_map(|path| fs::read_to_string(path).ok()) {
        if status.contains("Name:\tfs-privileges\n") {
            found += 1;
            let line = status.lines().find(|l| l.starts_with("CapPrm")).unwrap();
            let kept = u64::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap();
            // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID (0, 1, 3, 4, 6, 7), MKNOD (27),
            // SETFCAP (31): linux/capability.h.
            assert_eq!(kept & !0x8800_00db, 0, "{kept:#x}");
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn a_read_only_share_cannot_be_changed() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), true, "read-only");
    guest.mount();
    let node = guest.lookup("file").unwrap();
    let handle = guest.open(node);
    assert_eq!(guest.read(node, handle), b"hello");
    assert_eq!(guest.create("new"), Err(libc::EROFS));
    assert_eq!(fs::read_dir(share.path()).unwrap().count(), 1);
}

#[test]
fn a_reset_forgets_the_guest_and_the_next_one_is_served() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), false, "reset");
    for _ in 0..3 {
        guest.mount();
        let node = guest.lookup("file").unwrap();
        let handle = guest.open(node);
        assert_eq!(guest.read(node, handle), b"hello");
        guest.fs.stop();
        guest.start();
        let stale = guest.ask(Opcode::Open, node, &words(&[0, 0]));
        assert!(stale.is_err(), "{stale:?}");
    }
    guest.fs.stop();
    guest.fs.stop();
}

#[test]
fn what_cannot_be_shared_is_named() {
    let share = tempdir().unwrap();
    let file = share.path().join("file");
    fs::write(&file, "").unwrap();
    let error = |tag: &str, directory: &Path| {
        let config = Config::new(tag, directory, false);
        new(config).unwrap_err().to_string()
    };
    let missing = share.path().join("missing");
    assert!(error("t", &missing).contains("/missing: No such file"));
    assert!(error("t", &file).contains("/file: not a directory"));
    assert!(error("", share.path()).contains("1 to 36 bytes"));
    assert!(error(&"x".repeat(37), share.path()).contains("1 to 36 bytes"));

    let tag = "x".repeat(36);
    let guest = Guest::new(share.path(), false, &tag);
    let mut config = [0; 40];
    guest.fs.traits().config.read(0, &mut config);
    assert_eq!(config[..36], *tag.as_bytes());
    assert_eq!(config[36..], [1, 0, 0, 0]);
}

#[test]
fn a_guest_lets_go_of_files_to_find_more() {
    let share = tempdir().unwrap();
    let names = ["0", "1", "2", "3", "4"];
    for name in names {
        fs::write(share.path().join(name), name).unwrap();
    }
    let reminder = Arc::new(Reminder::new().unwrap());
    let mut config = Config::new("few", share.path(), false);
    config.most_files = 4;
    config.reminder = Some(Arc::clone(&reminder));
    let mut guest = Guest::with(config);
    guest.mount();
    let nodes = names[..4].iter().map(|name| guest.lookup(name).unwrap());
    let nodes: Vec<_> = nodes.collect();
    assert!(reminder.take(), "most of them");
    reminder.answered();

    // It waits for the guest, which is asked again, and which lets go by the other queue.
    guest.send(&request(Opcode::Lookup as u32, ROOT, 0, b"4\0"));
    wait(reminder.as_raw_fd());
    assert!(reminder.take());
    reminder.answered();
    guest.requests = 0;
    let forget = request(Opcode::Forget as u32, nodes[0], 0, &1_u64.to_ne_bytes());
    guest.send_with_room(&forget, 0);
    guest.answer();
    guest.requests = REQUESTS;
    let (_, length) = guest.answer();
    let error = &guest.room(length)[4..8];
    assert_eq!(error, 0_i32.to_ne_bytes());
    // What it knows it still finds.
    assert_eq!(guest.lookup("1"), Ok(nodes[1]));
}

#[test]
fn without_a_capability_the_host_refuses_what_takes_it() {
    let share = tempdir().unwrap();
    let mknod = |without: Vec<&'static str>, mode: u32, name: &str| {
        let mut config = Config::new("rights", share.path(), false);
        config.without = without;
        let mut guest = Guest::with(config);
        guest.mount();
        // /dev/null's number.
        let mut body = words(&[mode, 0x103, 0, 0]);
        body.extend(format!("{name}\0").as_bytes());
        guest.ask(Opcode::Mknod, ROOT, &body).map(|_| ())
    };
    if mknod(Vec::new(), libc::S_IFCHR, "device").is_err() {
        eprintln!("skipped: this process may make no devices");
        return;
    }
    assert_eq!(mknod(vec!["MKNOD"], libc::S_IFCHR, "b"), Err(libc::EPERM));
    assert_eq!(mknod(vec!["MKNOD"], libc::S_IFIFO, "fifo"), Ok(()));
}

/// FOPEN_NOFLUSH of linux/fuse.h. A kernel that does not say so would keep locks at close(2).
#[test]
fn a_guest_that_flushes_what_it_has_locked_need_not_flush_the_rest() {
    const INIT_EXT: u64 = 1 << 30;
    const FLUSH_LOCKS: u64 = 1 << 62;
    const NOFLUSH: u32 = 1 << 5;
    // A file system of the host that does nothing at close(2).
    let share = tempdir_in("/dev/shm").unwrap();
    let mut guest = Guest::new(share.path(), false, "flush");
    for (flags, expected) in [(INIT_EXT | FLUSH_LOCKS, NOFLUSH), (INIT_EXT, 0)] {
        guest.mount_with(flags);
        let (.., created) = guest.create_with_flags(&format!("{flags}")).unwrap();
        assert_eq!(created, expected);
        guest.fs.stop();
        guest.start();
    }
}

#[test]
fn what_the_kernel_makes_up_is_read_past_the_guests_cache() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("version"), "").unwrap();
    for (directory, direct) in [(Path::new("/proc"), 1), (share.path(), 0)] {
        let mut guest = Guest::new(directory, true, "virtual");
        guest.mount();
        let node = guest.lookup("version").unwrap();
        let answer = guest.ask(Opcode::Open, node, &words(&[0, 0])).unwrap();
        // `struct fuse_open_out`: the handle, and flags with FOPEN_DIRECT_IO.
        let flags = u32::from_ne_bytes(*answer[8..].first_chunk().unwrap());
        assert_eq!(flags & 1, direct, "{}", directory.display());
    }
}
