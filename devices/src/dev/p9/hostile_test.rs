//! Requests that no Linux sends.

use std::fs;

use proptest::prelude::*;
use tempfile::tempdir;
use vm_memory::{Bytes, GuestAddress};

use super::guest_test::{Client, NO_FID, ROOT, message, request as framed};
use super::wire::{Answer, request};
use crate::dev::share::guest_test::wait;
use crate::device::VirtioDevice;
use crate::testing::Buffer;

/// All requests that there are.
const ALL: [u8; 26] = [
    request::STATFS,
    request::LOPEN,
    request::LCREATE,
    request::SYMLINK,
    request::MKNOD,
    request::READLINK,
    request::GETATTR,
    request::SETATTR,
    request::XATTRWALK,
    request::XATTRCREATE,
    request::READDIR,
    request::FSYNC,
    request::LOCK,
    request::GETLOCK,
    request::LINK,
    request::MKDIR,
    request::RENAMEAT,
    request::UNLINKAT,
    request::VERSION,
    request::ATTACH,
    request::FLUSH,
    request::WALK,
    request::READ,
    request::WRITE,
    request::CLUNK,
    request::REMOVE,
];

type Fill = Box<dyn Fn(&mut Answer)>;

/// What a hostile guest asks of a directory with names that are paths. `file` is a fid of a file in the share.
fn with_paths(name: &str, directory: u32, file: u32) -> Vec<(u8, Fill)> {
    let name = name.to_owned();
    let with = |fill: fn(&mut Answer, &[u8], u32, u32)| -> Fill {
        let name = name.clone();
        Box::new(move |m| fill(m, name.as_bytes(), directory, file))
    };
    vec![
        (
            request::WALK,
            with(|m, name, directory, _| {
                m.u32(directory).u32(1000).u16(1).string(name);
            }),
        ),
        (
            request::LCREATE,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).u32(2).u32(0o644).u32(0);
            }),
        ),
        (
            request::SYMLINK,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).string(b"target").u32(0);
            }),
        ),
        (
            request::MKNOD,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).u32(libc::S_IFREG | 0o644);
                m.u32(0).u32(0).u32(0);
            }),
        ),
        (
            request::MKDIR,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).u32(0o755).u32(0);
            }),
        ),
        (
            request::LINK,
            with(|m, name, directory, file| {
                m.u32(directory).u32(file).string(name);
            }),
        ),
        (
            request::RENAMEAT,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).u32(ROOT).string(b"stolen");
            }),
        ),
        (
            request::RENAMEAT,
            with(|m, name, directory, _| {
                m.u32(ROOT).string(b"file").u32(directory).string(name);
            }),
        ),
        (
            request::UNLINKAT,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).u32(0);
            }),
        ),
        (
            request::UNLINKAT,
            with(|m, name, directory, _| {
                m.u32(directory).string(name).u32(0x200);
            }),
        ),
    ]
}

#[test]
fn no_name_leads_out_of_the_share() {
    let outside = tempdir().unwrap();
    let share = outside.path().join("share");
    for made in ["share/known", "elsewhere", "empty"] {
        fs::create_dir_all(outside.path().join(made)).unwrap();
    }
    for file in ["secret", "share/file"] {
        fs::write(outside.path().join(file), file).unwrap();
    }
    std::os::unix::fs::symlink("../..", share.join("known/up")).unwrap();
    let mut client = Client::new(&share, "escape");
    client.mount();
    let file = client.walk(ROOT, &["file"]).unwrap();
    let known = client.walk(ROOT, &["known"]).unwrap();
    // The root directory of the threads is not above a directory that the host has moved away.
    fs::rename(share.join("known"), outside.path().join("elsewhere/known")).unwrap();
    let absolute = outside.path().join("secret");
    let names = [
        "..",
        ".",
        "",
        "../../secret",
        "../../empty",
        absolute.to_str().unwrap(),
    ];
    for directory in [ROOT, known] {
        for name in names {
            for (kind, fill) in with_paths(name, directory, file) {
                assert_eq!(
                    client.call(kind, fill),
                    Err(libc::EINVAL),
                    "{kind} {name:?}"
                );
            }
        }
    }
    // A link is not followed.
    assert_eq!(client.walk(known, &["up", "secret"]), Err(libc::ENOENT));
    let up = client.walk(known, &["up"]).unwrap();
    assert_eq!(client.walk(up, &["secret"]), Err(libc::ENOTDIR));
    let opened = client.call(request::LOPEN, |m| {
        m.u32(up).u32(0);
    });
    assert_eq!(opened, Err(libc::ENXIO));
    let mut names: Vec<_> = fs::read_dir(outside.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["elsewhere", "empty", "secret", "share"]);
}

#[test]
fn fids_are_the_guests_to_name_but_not_to_confuse() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut client = Client::new(share.path(), "fids");
    client.mount();
    assert_eq!(client.attach(ROOT, 0), Err(libc::EBADF));
    let file = client.open(&["file"], libc::O_RDWR).unwrap();
    // Twice, and of what is open.
    let other = client.walk(ROOT, &["file"]).unwrap();
    for fid in [file, other] {
        assert_eq!(client.walk_to(ROOT, fid, &["file"]), Err(libc::EBADF));
    }
    assert_eq!(client.walk_to(file, file, &[]), Err(libc::EINVAL));
    let open = |client: &mut Client, fid| {
        client.call(request::LOPEN, |m| {
            m.u32(fid).u32(0);
        })
    };
    assert_eq!(open(&mut client, file), Err(libc::EBADF));
    // Those that do not exist, in each request that has one.
    for kind in ALL {
        if matches!(kind, request::VERSION | request::ATTACH | request::FLUSH) {
            continue;
        }
        let mut body = message(|m| {
            m.u32(77);
        });
        let rest = match kind {
            request::WALK => message(|m| {
                m.u32(78).u16(0);
            }),
            request::LCREATE | request::SYMLINK => message(|m| {
                m.string(b"a").u32(0).u64(0);
            }),
            request::LINK => message(|m| {
                m.u32(ROOT).string(b"a");
            }),
            request::MKDIR => message(|m| {
                m.string(b"a").u64(0);
            }),
            request::MKNOD => message(|m| {
                m.string(b"a").u64(0).u64(0);
            }),
            request::UNLINKAT => message(|m| {
                m.string(b"a").u32(0);
            }),
            request::RENAMEAT => message(|m| {
                m.string(b"a").u32(ROOT).string(b"b");
            }),
            request::XATTRWALK => message(|m| {
                m.u32(78).string(b"user.a");
            }),
            request::XATTRCREATE => message(|m| {
                m.string(b"user.a").u64(0).u32(0);
            }),
            request::LOCK => message(|m| {
                m.u8(0).u32(0).u64(0).u64(0).u32(0).string(b"");
            }),
            request::GETLOCK => message(|m| {
                m.u8(0).u64(0).u64(0).u32(0).string(b"");
            }),
            request::READ | request::READDIR | request::WRITE => vec![0; 12],
            request::LOPEN | request::FSYNC => vec![0; 4],
            request::GETATTR => vec![0; 8],
            request::SETATTR => vec![0; 56],
            _ => vec![],
        };
        body.extend(rest);
        if kind == request::SYMLINK {
            body = message(|m| {
                m.u32(77).string(b"a").string(b"b").u32(0);
            });
        }
        if kind == request::LCREATE {
            body = message(|m| {
                m.u32(77).string(b"a").u32(0).u32(0).u32(0);
            });
        }
        assert_eq!(client.ask(kind, &body), Err(libc::EBADF), "{kind}");
    }
    assert_eq!(client.read(file, 0, 9).unwrap(), b"hello");
}

#[test]
fn a_request_that_makes_no_sense_breaks_the_device_until_a_reset() {
    let share = tempdir().unwrap();
    let mut client = Client::new(share.path(), "nonsense");
    let long = framed(request::CLUNK, &[0; 4]);
    let claims = |size: u32| [&size.to_le_bytes(), &long[4..]].concat();
    // Shorter than a header, or of a length that it does not have or that cannot be.
    for wrong in [
        long[..6].to_vec(),
        claims(6),
        claims(0),
        claims(12),
        claims(u32::MAX),
    ] {
        client.mount();
        client.guest.send(&wrong);
        wait(client.guest.failed);
        client.guest.fs.stop();
        client.guest.start();
    }
    client.mount();
}

#[test]
fn a_request_needs_room_for_its_answer() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut client = Client::new(share.path(), "room");
    let getattr = framed(request::GETATTR, &[0; 12]);
    for room in [0, 1, 10, 11, 159] {
        client.mount();
        client.guest.send_with_room(&getattr, room);
        assert_eq!(client.guest.outcome(), None, "{room}");
        client.guest.fs.stop();
        client.guest.start();
    }
    client.mount();
    client.guest.send_with_room(&getattr, 160);
    assert_eq!(client.guest.answer().1, 160);
    // A READ fills what there is.
    let file = client.open(&["file"], libc::O_RDONLY).unwrap();
    let read = message(|m| {
        m.u32(file).u64(0).u32(4096);
    });
    client
        .guest
        .send_with_room(&framed(request::READ, &read), 14);
    assert_eq!(client.result(request::READ).unwrap(), b"\x03\0\0\0hel");
}

/// No more than was asked for is written to guest memory.
#[test]
fn a_read_leaves_the_rest_of_its_room_alone() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut client = Client::new(share.path(), "rest");
    client.mount();
    let file = client.open(&["file"], libc::O_RDONLY).unwrap();
    let room = GuestAddress(0x80_0000);
    client.guest.memory.write_slice(&[0xaa; 64], room).unwrap();
    assert_eq!(client.read(file, 0, 2).unwrap(), b"he");
    let mut after = [0; 3];
    client
        .guest
        .memory
        .read_slice(&mut after, GuestAddress(0x80_0000 + 13))
        .unwrap();
    assert_eq!(after, [0xaa; 3]);
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let share = tempdir().unwrap();
    let mut client = Client::new(share.path(), "bounds");
    client.mount();
    let many = ["a"; 17];
    assert_eq!(client.walk(ROOT, &many), Err(libc::EINVAL));
    let long = "a".repeat(256);
    assert_eq!(client.walk(ROOT, &[&long]), Err(libc::ENAMETOOLONG));
    assert_eq!(client.ask(request::CLUNK, &[0; 9000]), Err(libc::EMSGSIZE));
    assert_eq!(client.ask(request::CLUNK, &[0; 5]), Err(libc::EINVAL));
    // A WRITE whose data are not all there, or more.
    let file = client.create(ROOT, "file", 0o644).unwrap();
    for (claimed, sent) in [(5, 4), (4, 5), (u32::MAX, 4)] {
        let mut body = message(|m| {
            m.u32(file).u64(0).u32(claimed);
        });
        body.resize(body.len() + sent, b'x');
        assert_eq!(client.ask(request::WRITE, &body), Err(libc::EINVAL));
    }
    for offset in [1 << 63, u64::MAX] {
        assert_eq!(client.read(file, offset, 1), Err(libc::EINVAL));
        assert_eq!(client.write(file, offset, b"x"), Err(libc::EINVAL));
    }
    assert_eq!(fs::metadata(share.path().join("file")).unwrap().len(), 0);
}

#[test]
fn attributes_that_are_written_are_bounded() {
    let share = tempdir().unwrap();
    let mut client = Client::new(share.path(), "values");
    client.mount();
    let create = |client: &mut Client, size: u64| {
        let fid = client.walk(ROOT, &[]).unwrap();
        let created = client.call(request::XATTRCREATE, |m| {
            m.u32(fid).string(b"user.a").u64(size).u32(0);
        });
        created.map(|_| fid)
    };
    assert_eq!(create(&mut client, 65537), Err(libc::E2BIG));
    assert_eq!(create(&mut client, u64::MAX), Err(libc::E2BIG));
    let fids: Vec<_> = (0..64)
        .map(|_| create(&mut client, 65536).unwrap())
        .collect();
    assert_eq!(create(&mut client, 1), Err(libc::ENOMEM));
    // Parts that are not the next ones, or too long; and a value that is not complete.
    assert_eq!(client.write(fids[0], 1, b"x"), Err(libc::EINVAL));
    assert_eq!(client.write(fids[0], 0, b"x"), Ok(1));
    assert_eq!(client.clunk(fids[0]), Err(libc::EINVAL));
    let small = create(&mut client, 3).unwrap();
    assert_eq!(client.write(small, 0, b"four"), Err(libc::EINVAL));
    assert_eq!(client.clunk(small), Err(libc::EINVAL));
    client.version(1 << 16);
    client.attach(ROOT, 0).unwrap();
    for _ in 0..64 {
        create(&mut client, 65536).unwrap();
    }
}

#[test]
fn a_file_can_be_known_twice_on_average() {
    let share = tempdir().unwrap();
    let mut client = Client::with(share.path(), "many", |config| config.share.most_files = 8);
    client.mount();
    // One is the root's.
    let known = (0..).take_while(|_| client.walk(ROOT, &[]).is_ok()).count();
    assert_eq!(known, 15);
    assert_eq!(client.walk(ROOT, &[]), Err(libc::EMFILE));
    let last = client.new_fid() - 3;
    client.clunk(last).unwrap();
    assert!(client.walk(ROOT, &[]).is_ok());
}

/// A message in 1,000 descriptors of an indirect table is one as any other.
#[test]
fn a_long_chain_is_served_or_refused() {
    let share = tempdir().unwrap();
    let mut client = Client::new(share.path(), "chain");
    client.mount();
    let file = client.create(ROOT, "file", 0o644).unwrap();
    let mut body = message(|m| {
        m.u32(file).u64(0).u32(1000 - 23);
    });
    body.resize(1000 - 7, b'x');
    let bytes = framed(request::WRITE, &body);
    let (from, room) = (0x40_0000, 0x80_0000);
    client
        .guest
        .memory
        .write_slice(&bytes, GuestAddress(from))
        .unwrap();
    let part = |address: u64| Buffer {
        address,
        length: 1,
        writable: false,
    };
    let mut buffers: Vec<_> = (0..1000).map(|at| part(from + at)).collect();
    buffers.push(Buffer {
        address: room,
        length: 4096,
        writable: true,
    });
    client.guest.drivers[0].add_indirect(0x50_0000, &buffers);
    client.guest.kicks[0].write(1).unwrap();
    assert_eq!(client.result(request::WRITE).unwrap(), 977u32.to_le_bytes());
    let written = fs::read(share.path().join("file")).unwrap();
    assert_eq!(written, [b'x'; 977]);
}

/// What a request says after its header: anything, or what may fit it.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let anything = prop::collection::vec(any::<u8>(), 0..200);
    let fid = || prop_oneof![8 => 0..6u32, 1 => Just(NO_FID), 1 => any::<u32>()];
    let number = || prop_oneof![4 => 0..5u64, 1 => any::<u64>()];
    let numbers = (fid(), prop::collection::vec(number(), 0..9), 0..9usize).prop_map(
        |(fid, numbers, cut)| {
            let mut body = fid.to_le_bytes().to_vec();
            body.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            body.truncate((body.len()).saturating_sub(cut));
            body
        },
    );
    let names = (
        fid(),
        fid(),
        prop::collection::vec("(a|d|n|\\.\\.|[a-z/]{0,9})", 0..4),
        number(),
    );
    let walk = names.clone().prop_map(|(from, to, names, _)| {
        message(|m| {
            m.u32(from).u32(to).u16(names.len() as u16);
            for name in &names {
                m.string(name.as_bytes());
            }
        })
    });
    let named = names.prop_map(|(fid, other, names, number)| {
        message(|m| {
            m.u32(fid);
            for name in &names {
                m.string(name.as_bytes());
            }
            m.u32(other).u64(number);
        })
    });
    prop_oneof![anything, numbers, walk, named]
}

fn kind() -> impl Strategy<Value = u8> {
    let known = prop::sample::select(&ALL[..]);
    prop_oneof![12 => known, 1 => any::<u8>()]
}

fn room() -> impl Strategy<Value = u32> {
    prop_oneof![1 => 0..17u32, 1 => 11..300u32, 18 => Just(1 << 16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever a request says, and whatever room it has, it is answered, or the device stops, and serves again
    /// after a reset.
    #[test]
    fn any_request_is_survived(
        requests in prop::collection::vec((kind(), body(), room(), any::<Option<u8>>()), 1..40),
    ) {
        let outside = tempdir().unwrap();
        let share = outside.path().join("share");
        fs::create_dir_all(share.join("d")).unwrap();
        fs::write(share.join("a"), "hello").unwrap();
        let mut client = Client::new(&share, "fuzz");
        client.mount();
        client.walk_to(ROOT, 1, &["d"]).unwrap();
        client.walk_to(ROOT, 2, &["a"]).unwrap();
        client.walk_to(ROOT, 3, &["a"]).unwrap();
        for (fid, flags) in [(1, 0), (2, libc::O_RDWR as u32)] {
            let open = client.call(request::LOPEN, |m| {
                m.u32(fid).u32(flags);
            });
            open.unwrap();
        }
        for (kind, body, room, cut) in requests {
            let mut bytes = framed(kind, &body);
            if let Some(cut) = cut.filter(|cut| *cut < 20) {
                bytes.truncate(cut.into());
            }
            client.guest.send_with_room(&bytes, room);
            if client.guest.outcome().is_none() {
                break;
            }
        }
        client.guest.fs.stop();
        client.guest.start();
        client.mount();
        prop_assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
