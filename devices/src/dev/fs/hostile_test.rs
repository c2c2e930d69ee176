//! Requests that no Linux sends.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};
use virtiofsd::fuse::Opcode;

use super::guest_test::{Guest, ROOT, is_readable, request, wait, words};
use vmm_sys_util::epoll::EventSet;

use crate::dev::share::FAILED_TOKEN;
use crate::device::VirtioDevice;
use crate::testing::FakeWatch;

#[test]
fn a_request_that_makes_no_sense_breaks_the_device_until_a_reset() {
    let share = tempdir().unwrap();
    let mut guest = Guest::new(share.path(), false, "nonsense");
    guest.send(b"short");
    wait(guest.failed);
    let mut watch = FakeWatch::default();
    let broken = guest
        .fs
        .ready(FAILED_TOKEN, EventSet::IN, &mut [], &mut watch);
    assert!(broken.unwrap_err().to_string().contains("nonsense"));
    guest.fs.stop();
    guest.start();
    assert!(!is_readable(guest.failed, 0));
    guest.mount();
}

/// What a hostile guest asks of a directory with names that are paths. `file` is a node of a file in
/// the share.
fn with_paths(up: &str, file: u64) -> Vec<(Opcode, Vec<u8>)> {
    let body = |fixed: &[u8], names: &str| [fixed, names.as_bytes()].concat();
    let node = |node: u64| node.to_ne_bytes();
    let name = |name: &str| format!("{up}/{name}\0");
    vec![
        (Opcode::Lookup, body(&[], &name("secret"))),
        (Opcode::Unlink, body(&[], &name("secret"))),
        (Opcode::Rmdir, body(&[], &name("empty"))),
        (Opcode::Mkdir, body(&words(&[0o777, 0]), &name("made"))),
        (
            Opcode::Mknod,
            body(&words(&[0o100_666, 0, 0, 0]), &name("made")),
        ),
        (Opcode::Symlink, body(&[], &(name("made") + "secret\0"))),
        (Opcode::Link, body(&node(file), &name("made"))),
        (
            Opcode::Create,
            body(
                &words(&[libc::O_RDWR as u32, 0o100_666, 0, 0]),
                &name("made"),
            ),
        ),
        (
            Opcode::Rename,
            body(&node(ROOT), &(name("secret") + "stolen\0")),
        ),
        (
            Opcode::Rename2,
            body(
                &[node(ROOT), [0; 8]].concat(),
                &(name("secret") + "stolen\0"),
            ),
        ),
    ]
}

/// A directory of the host with a share in it, and things that no guest may touch.
struct Outside {
    directory: TempDir,
    share: PathBuf,
}

impl Outside {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let share = directory.path().join("share");
        for made in ["share/known", "elsewhere", "empty"] {
            fs::create_dir_all(directory.path().join(made)).unwrap();
        }
        for file in ["secret", "share/file"] {
            fs::write(directory.path().join(file), file).unwrap();
        }
        Self { directory, share }
    }

    fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }
}

#[test]
fn no_name_leads_out_of_the_share() {
    let outside = Outside::new();
    let mut guest = Guest::new(&outside.share, false, "escape");
    guest.mount();
    let file = guest.lookup("file").unwrap();
    for up in ["..", outside.directory.path().to_str().unwrap()] {
        for (opcode, body) in with_paths(up, file) {
            let answer = guest.ask(opcode, ROOT, &body);
            assert_eq!(answer, Err(libc::EINVAL), "{opcode:?} {up}");
        }
    }
    assert_eq!(guest.lookup(".."), Err(libc::EINVAL));
    assert_eq!(outside.names(), ["elsewhere", "empty", "secret", "share"]);
    // The rest of the process is where it was.
    assert!(fs::metadata("/proc/self/exe").is_ok());
}

/// The root directory of the threads is not above a directory that the host has moved away.
#[test]
fn no_name_leads_out_by_a_directory_that_has_left_the_share() {
    let outside = Outside::new();
    let mut guest = Guest::new(&outside.share, false, "left");
    guest.mount();
    let (file, known) = (
        guest.lookup("file").unwrap(),
        guest.lookup("known").unwrap(),
    );
    let moved = outside.directory.path().join("elsewhere/known");
    fs::rename(outside.share.join("known"), moved).unwrap();
    let mut wrong = Vec::new();
    for (opcode, body) in with_paths("../..", file) {
        let answer = guest.ask(opcode, known, &body);
        if answer != Err(libc::EINVAL) {
            wrong.push((opcode, answer.map(drop)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // Out of the share by the second name.
    let body = [known.to_ne_bytes().as_slice(), b"file\0../../made\0"].concat();
    assert_eq!(guest.ask(Opcode::Rename, ROOT, &body), Err(libc::EINVAL));
    assert_eq!(outside.names(), ["elsewhere", "empty", "secret", "share"]);
}

/// The host's kernel takes offsets as signed numbers.
#[test]
fn no_file_has_an_offset_that_is_negative() {
    let share = tempdir().unwrap();
    let mut guest = Guest::new(share.path(), false, "offset");
    guest.mount();
    let (node, handle) = guest.create("file").unwrap();
    for offset in [1 << 63, u64::MAX] {
        let mut body = handle.to_ne_bytes().to_vec();
        body.extend(offset.to_ne_bytes());
        body.extend(words(&[1, 0, 0, 0, 0, 0]));
        let answer = guest.ask(Opcode::Read, node, &body);
        assert_eq!(answer, Err(libc::EINVAL));
        body.push(b'x');
        let answer = guest.ask(Opcode::Write, node, &body);
        assert_eq!(answer, Err(libc::EINVAL));
    }
}

/// A driver that leaves less room for an answer than its header takes is broken, but there are
/// requests that are not answered.
#[test]
fn a_request_needs_room_for_its_answer() {
    let share = tempdir().unwrap();
    let mut guest = Guest::new(share.path(), false, "room");
    let body = [0; 40];
    for room in [0, 1, 15] {
        for opcode in [
            Opcode::Read,
            Opcode::Readdir,
            Opcode::Readdirplus,
            Opcode::Getattr,
        ] {
            guest.mount();
            guest.send_with_room(&request(opcode as u32, ROOT, 0, &body), room);
            assert_eq!(guest.outcome(), None, "{opcode:?} with {room}");
            guest.fs.stop();
            guest.start();
        }
        guest.mount();
        for opcode in [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt] {
            guest.send_with_room(&request(opcode as u32, ROOT, 0, &body), room);
            assert_eq!(guest.answer().1, 0, "{opcode:?} with {room}");
        }
    }
    guest.send_with_room(&request(Opcode::Read as u32, ROOT, 0, &body), 16);
    assert_eq!(guest.answer().1, 16);
}

/// What a request says after its header: anything, or a handle and numbers that may fit it.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..200);
    let number = || prop_oneof![0..3u64, any::<u64>()];
    let handle = (0..3u64, number(), number(), number());
    let numbers = handle.prop_map(|(handle, a, b, c)| {
        let numbers = [handle, a, b, c, 0, 0];
        numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
    });
    let name = "(a|d|\\.\\.|[a-z/]{0,9})\0?".prop_map(String::into_bytes);
    prop_oneof![anything, numbers, name]
}

fn room() -> impl Strategy<Value = u32> {
    prop_oneof![0..17u32, 16..300u32, Just(1 << 16)]
}

/// How much of a request there is, and how much its header says there is.
fn lengths() -> impl Strategy<Value = (usize, Option<u32>)> {
    let cut = prop_oneof![9 => Just(usize::MAX), 1 => 0..100usize];
    let claim = prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some), 1 => (0..300u32).prop_map(Some)];
    (cut, claim)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a request says, and whatever room it has, it is answered, or the device stops, and
    /// serves again after a reset.
    #[test]
    fn any_request_is_survived(
        requests in prop::collection::vec((0..61u32, 0..4u64, body(), room(), lengths()), 1..20),
    ) {
        let share = tempdir().unwrap();
        fs::write(share.path().join("a"), "hello").unwrap();
        fs::create_dir(share.path().join("d")).unwrap();
        let mut guest = Guest::new(share.path(), false, "fuzz");
        guest.mount();
        let file = guest.lookup("a").unwrap();
        guest.open(file);
        guest.ask(Opcode::Opendir, ROOT, &words(&[0, 0])).unwrap();
        for (opcode, node, body, room, (cut, claim)) in requests {
            let mut message = request(opcode, node, 0, &body);
            if let Some(claim) = claim {
                message[..4].copy_from_slice(&claim.to_ne_bytes());
            }
            message.truncate(cut);
            guest.send_with_room(&message, room);
            if guest.outcome().is_none() {
                break;
            }
        }
        guest.fs.stop();
        guest.start();
        guest.mount();
    }
}
