//! A guest that watches files of its share.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::sys::inotify::AddWatchFlags;
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};
use virtiofsd::fuse::Opcode;
use vm_memory::{Bytes, GuestAddress};

use super::request::{CHANGES, EVENTS, Event, WATCH};
use crate::dev::fs::guest_test::{Guest, REQUESTS, ROOT, request, wait, words};
use crate::device::VirtioDevice;
use crate::testing::Buffer;

/// A guest with a share, and the share.
struct Shared {
    guest: Guest,
    directory: TempDir,
}

impl Shared {
    fn new(tag: &str) -> Self {
        let directory = tempdir().unwrap();
        fs::write(directory.path().join("file"), "hello").unwrap();
        let mut guest = Guest::new(directory.path(), false, tag);
        guest.mount();
        Self { guest, directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[u8], room: u32) -> Result<Vec<u8>, i32> {
        let message = request(opcode, node, 0, body);
        self.guest.send_with_room(&message, room);
        let (_, length) = self.guest.answer();
        let answer = self.guest.room(length);
        match i32::from_ne_bytes(*answer[4..].first_chunk().unwrap()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    fn watch(&mut self, node: u64, mask: u32) -> Result<(), i32> {
        self.ask(WATCH, node, &words(&[mask, 0]), 16).map(drop)
    }

    /// What has happened, when something has.
    fn events(&mut self) -> Vec<Event> {
        parse(&self.ask(EVENTS, ROOT, &[], 4096 + 16).unwrap())
    }

    /// As [`Self::events`], masks and names only.
    fn told(&mut self) -> Vec<(u64, AddWatchFlags, String)> {
        let named = |event: Event| {
            let name = String::from_utf8(event.name).unwrap();
            (event.node, event.mask, name)
        };
        self.events().into_iter().map(named).collect()
    }
}

fn parse(mut answer: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !answer.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(*answer[at..].first_chunk().unwrap());
        let event = Event {
            node: u64::from_ne_bytes(*answer.first_chunk().unwrap()),
            mask: AddWatchFlags::from_bits_retain(word(8)),
            cookie: word(12),
            name: answer[24..][..word(16) as usize].to_vec(),
        };
        answer = &answer[event.size()..];
        events.push(event);
    }
    events
}

const ALL: u32 = CHANGES.bits();

#[test]
fn what_others_change_is_told_and_what_the_guest_changes_is_not() {
    let mut shared = Shared::new("changes");
    let file = shared.guest.lookup("file").unwrap();
    for node in [ROOT, file] {
        shared.watch(node, ALL).unwrap();
    }
    let (mine, handle) = shared.guest.create("mine").unwrap();
    shared.guest.write(mine, handle, b"mine");
    let mut release = handle.to_ne_bytes().to_vec();
    release.extend([0; 16]);
    shared.guest.ask(Opcode::Release, mine, &release).unwrap();
    let renamed = [&ROOT.to_ne_bytes()[..], b"mine\0moved\0"].concat();
    shared.guest.ask(Opcode::Rename, ROOT, &renamed).unwrap();
    shared.guest.ask(Opcode::Unlink, ROOT, b"moved\0").unwrap();

    let other = File::options().write(true).open(shared.path("file"));
    other.unwrap().write_at(b"other", 0).unwrap();
    let (modify, close) = (AddWatchFlags::IN_MODIFY, AddWatchFlags::IN_CLOSE_WRITE);
    let both = |mask| [(ROOT, mask, "file".to_owned()), (file, mask, String::new())];
    assert_eq!(shared.told(), [both(modify), both(close)].concat());
    assert!(shared.path("file").exists() && !shared.path("moved").exists());
}

#[test]
fn a_move_keeps_its_two_sides_and_an_end_is_told() {
    let mut shared = Shared::new("moves");
    let file = shared.guest.lookup("file").unwrap();
    shared.watch(ROOT, ALL).unwrap();
    shared
        .watch(file, AddWatchFlags::IN_DELETE_SELF.bits())
        .unwrap();
    fs::rename(shared.path("file"), shared.path("moved")).unwrap();
    let moved = shared.events();
    let masks: Vec<_> = moved.iter().map(|event| event.mask).collect();
    assert_eq!(
        masks,
        [AddWatchFlags::IN_MOVED_FROM, AddWatchFlags::IN_MOVED_TO]
    );
    assert!(moved[0].cookie != 0 && moved[0].cookie == moved[1].cookie);

    // The share has it open as long as the guest knows it.
    fs::remove_file(shared.path("moved")).unwrap();
    let gone = [
        (file, AddWatchFlags::IN_DELETE_SELF, String::new()),
        (ROOT, AddWatchFlags::IN_DELETE, "moved".to_owned()),
    ];
    assert_eq!(shared.told(), gone);
}

/// Sends a request for events that has its own place, so that others can be made meanwhile.
fn begin(guest: &mut Guest) -> u32 {
    let place = 0xa0_0000;
    let message = request(EVENTS, ROOT, 0, &[]);
    guest
        .memory
        .write_slice(&message, GuestAddress(place))
        .unwrap();
    let buffer = |address, length, writable| Buffer {
        address,
        length,
        writable,
    };
    let buffers = [
        buffer(place, message.len() as u32, false),
        buffer(place + 0x1000, 0x1000, true),
    ];
    let head = guest.drivers[REQUESTS].add(&buffers);
    guest.kicks[REQUESTS].write(1).unwrap();
    head.into()
}

#[test]
fn one_request_waits_and_ends_with_an_event_the_last_watch_or_the_guest() {
    let mut shared = Shared::new("waits");
    shared.watch(ROOT, ALL).unwrap();
    let head = begin(&mut shared.guest);
    // Either of two may be the one that waits.
    shared
        .guest
        .send_with_room(&request(EVENTS, ROOT, 0, &[]), 4096);
    let (refused, length) = shared.guest.answer();
    assert_eq!(length, 16);
    assert!(shared.guest.lookup("file").is_ok());
    fs::create_dir(shared.path("made")).unwrap();
    let (answered, length) = shared.guest.answer();
    assert_eq!(length, 16 + 24 + 8);
    assert!(answered != refused && [answered, refused].contains(&head));

    let head = begin(&mut shared.guest);
    shared
        .guest
        .send_with_room(&request(WATCH, ROOT, 0, &words(&[0, 0])), 16);
    let mut answers = [shared.guest.answer(), shared.guest.answer()];
    answers.sort_by_key(|(answered, _)| *answered != head);
    assert_eq!(answers[0], (head, 16));
    fs::create_dir(shared.path("unseen")).unwrap();

    shared.watch(ROOT, ALL).unwrap();
    begin(&mut shared.guest);
    shared.guest.fs.stop();
    shared.guest.start();
    shared.guest.mount();
    shared.watch(ROOT, ALL).unwrap();
    fs::create_dir(shared.path("seen")).unwrap();
    let seen = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ISDIR;
    assert_eq!(shared.told(), [(ROOT, seen, "seen".to_owned())]);
}

#[test]
fn impossible_watches_are_refused() {
    let mut shared = Shared::new("refused");
    std::os::unix::fs::symlink("file", shared.path("link")).unwrap();
    let link = shared.guest.lookup("link").unwrap();
    for node in [link, 0, 12345, u64::MAX] {
        assert_eq!(shared.watch(node, ALL), Err(libc::EBADF), "{node}");
        shared.watch(node, 0).unwrap();
    }
    // No room for an event: it stays.
    shared.watch(ROOT, ALL).unwrap();
    fs::create_dir(shared.path("made")).unwrap();
    assert_eq!(shared.ask(EVENTS, ROOT, &[], 16 + 31), Ok(vec![]));
    assert_eq!(shared.told().len(), 1);
    // A request without its mask.
    shared.guest.send(&request(WATCH, ROOT, 0, &[0; 4]));
    wait(shared.guest.failed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever bits a guest sets, it hears of changes that it asked for.
    #[test]
    fn masks_are_what_inotify_knows(mask in any::<u32>()) {
        let mut shared = Shared::new("masks");
        shared.watch(ROOT, mask).unwrap();
        shared.watch(ROOT, AddWatchFlags::IN_DELETE.bits()).unwrap();
        fs::create_dir(shared.path("made")).unwrap();
        fs::remove_dir(shared.path("made")).unwrap();
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ISDIR;
        prop_assert_eq!(shared.told(), [(ROOT, gone, "made".to_owned())]);
    }
}
