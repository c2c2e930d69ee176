//! A guest that opens files by what it knows of them.

use std::fs;

use tempfile::tempdir;
use virtiofsd::fuse::Opcode;

use super::opens::OPEN_CHECKED;
use crate::dev::fs::guest_test::{Guest, ROOT, request, wait, words};

/// `struct fuse_open_out` and `struct fuse_attr_out`.
const ROOM: u32 = 16 + 16 + 104;

/// Opens a node if it has the name in the root directory; returns handle and size.
fn open(guest: &mut Guest, node: u64, directory: u64, name: &str) -> Result<(u64, u64), i32> {
    let mut body = words(&[libc::O_RDONLY as u32, 0]);
    body.extend(directory.to_ne_bytes());
    body.extend(format!("{name}\0").as_bytes());
    guest.send_with_room(&request(OPEN_CHECKED, node, 0, &body), ROOM);
    let (_, length) = guest.answer();
    let answer = guest.room(length);
    let long = |at: usize| u64::from_ne_bytes(*answer[at..].first_chunk().unwrap());
    match i32::from_ne_bytes(*answer[4..].first_chunk().unwrap()) {
        0 => Ok((long(16), long(16 + 16 + 16 + 8))),
        error => Err(-error),
    }
}

#[test]
fn a_file_is_opened_by_the_name_that_it_still_has_with_its_size() {
    let share = tempdir().unwrap();
    let path = |name: &str| share.path().join(name);
    fs::write(path("file"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), false, "opens");
    guest.mount();
    let node = guest.lookup("file").unwrap();
    fs::write(path("file"), "hello, world").unwrap();
    let (handle, size) = open(&mut guest, node, ROOT, "file").unwrap();
    assert_eq!(size, 12);
    assert_eq!(guest.read(node, handle), b"hello, world");

    fs::write(path("other"), "other").unwrap();
    fs::rename(path("other"), path("file")).unwrap();
    assert_eq!(open(&mut guest, node, ROOT, "file"), Err(libc::ESTALE));
    let (handle, size) = open(&mut guest, node, 0, "").unwrap();
    assert_eq!(
        (guest.read(node, handle).as_slice(), size),
        (&b"hello, world"[..], 12)
    );
    fs::remove_file(path("file")).unwrap();
    assert_eq!(open(&mut guest, node, ROOT, "file"), Err(libc::ESTALE));
}

#[test]
fn nothing_impossible_is_opened() {
    let outside = tempdir().unwrap();
    let share = outside.path().join("share");
    fs::create_dir(&share).unwrap();
    for name in ["secret", "share/file"] {
        fs::write(outside.path().join(name), name).unwrap();
    }
    let mut guest = Guest::new(&share, false, "impossible");
    guest.mount();
    let node = guest.lookup("file").unwrap();
    let long = "n".repeat(300);
    for name in ["..", "../secret", "../share/file", "", "file\0x", &long] {
        assert_eq!(
            open(&mut guest, node, ROOT, name),
            Err(libc::ESTALE),
            "{name}"
        );
    }
    for directory in [node, 12345, u64::MAX] {
        assert_eq!(open(&mut guest, node, directory, "file"), Err(libc::ESTALE));
    }
    assert_eq!(open(&mut guest, 12345, 0, ""), Err(libc::EBADF));
    assert!(guest.ask(Opcode::Getattr, node, &[0; 16]).is_ok());
    guest.send(&request(OPEN_CHECKED, node, 0, &words(&[0, 0, 1])));
    wait(guest.failed);
}
