//! Shares, with the test as their guest.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tempfile::{TempDir, tempdir};

use super::guest_test::{Client, NO_FID, ROOT};
use super::wire::{Body, request};
use super::*;
use crate::device::VirtioDevice;

fn share() -> (TempDir, Client) {
    let share = tempdir().unwrap();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut client = Client::new(share.path(), "share");
    client.mount();
    (share, client)
}

#[test]
fn files_are_read_and_written_in_both_directions() {
    let (share, mut client) = share();
    fs::create_dir(share.path().join("d")).unwrap();
    fs::write(share.path().join("d/from-host"), "hello").unwrap();
    let file = client.open(&["d", "from-host"], libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file, 0, 100).unwrap(), b"hello");
    assert_eq!(client.read(file, 1, 3).unwrap(), b"ell");
    assert_eq!(client.read(file, 5, 3).unwrap(), b"");
    assert_eq!(client.write(file, 0, b"x"), Err(libc::EBADF));
    assert_eq!(client.open(&["nothing"], 0), Err(libc::ENOENT));

    let made = client.create(ROOT, "from-guest", 0o640).unwrap();
    assert_eq!(client.write(made, 0, b"hi there"), Ok(8));
    assert_eq!(client.write(made, 3, b"you"), Ok(3));
    let path = share.path().join("from-guest");
    assert_eq!(fs::read(&path).unwrap(), b"hi youre");
    assert_eq!(fs::metadata(&path).unwrap().mode(), 0o100_640);
    fs::write(&path, "changed").unwrap();
    assert_eq!(client.read(made, 0, 100).unwrap(), b"changed");
    for data_only in [0, 1] {
        let synced = client.call(request::FSYNC, |m| {
            m.u32(made).u32(data_only);
        });
        assert_eq!(synced, Ok(vec![]));
    }
    // Of a request that was answered long ago.
    let flushed = client.call(request::FLUSH, |m| {
        m.u16(7);
    });
    assert_eq!(flushed, Ok(vec![]));
}

#[test]
fn a_message_is_as_long_as_was_agreed_on() {
    let (share, mut client) = share();
    fs::write(share.path().join("file"), vec![7; 100_000]).unwrap();
    assert_eq!(client.version(u32::MAX), 125 * 4096);
    assert_eq!(client.version(8192), 8192);
    client.attach(ROOT, 0).unwrap();
    let file = client.open(&["file"], libc::O_RDWR).unwrap();
    assert_eq!(client.read(file, 0, 100_000).unwrap().len(), 8192 - 11);
    let other = client.call(request::VERSION, |m| {
        m.u32(8192).string(b"9P2000.u");
    });
    let other = other.unwrap();
    let mut body = Body(&other);
    assert_eq!(body.u32().unwrap(), 8192);
    assert_eq!(body.string().unwrap(), b"unknown");
    let too_short = client.call(request::VERSION, |m| {
        m.u32(4095).string(b"9P2000.L");
    });
    assert_eq!(too_short, Err(libc::EINVAL));
}

#[test]
fn the_guest_acts_as_its_users_without_a_umask() {
    let (share, mut client) = share();
    let alice = client.new_fid();
    client.attach(alice, 1234).unwrap();
    client.create(alice, "mine", 0o666).unwrap();
    let made = client.call(request::MKDIR, |m| {
        m.u32(alice).string(b"directory").u32(0o2777).u32(5678);
    });
    assert!(made.is_ok());
    let metadata = |name: &str| fs::metadata(share.path().join(name)).unwrap();
    let mine = metadata("mine");
    assert_eq!((mine.uid(), mine.gid()), (1234, 0));
    assert_eq!(mine.mode() & 0o7777, 0o666);
    let directory = metadata("directory");
    assert_eq!((directory.uid(), directory.gid()), (1234, 5678));
    client.create(ROOT, "of-root", 0o4755).unwrap();
    assert_eq!(metadata("of-root").uid(), 0);
    assert_eq!(metadata("of-root").mode() & 0o7777, 0o4755);
    // Nobody by name is nobody.
    let anyone = client.new_fid();
    client.attach(anyone, NO_FID).unwrap();
    client.create(anyone, "of-nobody", 0o644).unwrap();
    assert_eq!(metadata("of-nobody").uid(), 65534);
}

#[test]
fn a_write_of_another_user_than_root_takes_the_set_user_id_bit() {
    let (share, mut client) = share();
    let alice = client.new_fid();
    client.attach(alice, 1234).unwrap();
    let mode = |name: &str| fs::metadata(share.path().join(name)).unwrap().mode() & 0o7777;
    for (user, expected) in [(ROOT, 0o4777), (alice, 0o777)] {
        for (name, size) in [("written", None), ("cut", Some(1))] {
            let path = share.path().join(name);
            fs::write(&path, "contents").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4777)).unwrap();
            let fid = client.walk(user, &[name]).unwrap();
            if let Some(size) = size {
                set_attributes(&mut client, fid, 1 << 3, (0, size)).unwrap();
            } else {
                let open = client.call(request::LOPEN, |m| {
                    m.u32(fid).u32(libc::O_WRONLY as u32);
                });
                open.unwrap();
                client.write(fid, 0, b"x").unwrap();
            }
            assert_eq!(mode(name), expected, "{name}");
        }
    }
}

/// SETATTR with these bits, a mode and a size; the times are 1 and 2, the owner is 3:4.
fn set_attributes(
    client: &mut Client,
    fid: u32,
    bits: u32,
    (mode, size): (u32, u64),
) -> Result<Vec<u8>, i32> {
    client.call(request::SETATTR, |m| {
        m.u32(fid).u32(bits).u32(mode).u32(3).u32(4).u64(size);
        m.u64(1).u64(100).u64(2).u64(200);
    })
}

#[test]
fn attributes_are_those_of_the_file() {
    let (share, mut client) = share();
    let path = share.path().join("file");
    fs::write(&path, "contents").unwrap();
    let fid = client.walk(ROOT, &["file"]).unwrap();
    set_attributes(&mut client, fid, 0x1bf, (0o640, 3)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    let answer = client.call(request::GETATTR, |m| {
        m.u32(fid).u64(u64::MAX);
    });
    let answer = answer.unwrap();
    assert_eq!(answer.len(), 8 + 13 + 12 + 15 * 8);
    let mut body = Body(&answer);
    assert_eq!(body.u64().unwrap(), 0x17ff);
    assert_eq!((body.u8().unwrap(), body.u32().unwrap()), (0, 1));
    assert_eq!(body.u64().unwrap(), metadata.ino());
    let numbers: Vec<_> = (0..3).map(|_| body.u32().unwrap()).collect();
    assert_eq!(numbers, [0o100_640, 3, 4]);
    let longs: Vec<_> = (0..15).map(|_| body.u64().unwrap()).collect();
    let (blocks, ctime) = (metadata.blocks(), metadata.ctime() as u64);
    let blksize = metadata.blksize();
    assert_eq!(longs[..9], [1, 0, 3, blksize, blocks, 1, 100, 2, 200]);
    assert_eq!((longs[9], longs[10]), (ctime, metadata.ctime_nsec() as u64));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (2, 200));

    let stat = client.call(request::STATFS, |m| {
        m.u32(fid);
    });
    let stat = stat.unwrap();
    assert_eq!(stat.len(), 4 + 4 + 6 * 8 + 4);
    assert_eq!(Body(&stat).u32().unwrap(), 0x0102_1997);
    assert_eq!(Body(&stat[56..]).u32().unwrap(), 255);
}

#[test]
fn entries_are_made_renamed_and_removed() {
    let (share, mut client) = share();
    let path = |name: &str| share.path().join(name);
    let mut make = |kind: u8, fill: &dyn Fn(&mut super::wire::Answer)| {
        client.call(kind, fill).unwrap();
    };
    make(request::MKDIR, &|m| {
        m.u32(ROOT).string(b"d").u32(0o755).u32(0);
    });
    make(request::SYMLINK, &|m| {
        m.u32(ROOT).string(b"link").string(b"/no/such/place").u32(0);
    });
    make(request::MKNOD, &|m| {
        let mode = libc::S_IFIFO | 0o600;
        m.u32(ROOT).string(b"pipe").u32(mode).u32(0).u32(0).u32(0);
    });
    assert!(fs::metadata(path("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(
        fs::read_link(path("link")).unwrap(),
        Path::new("/no/such/place")
    );
    let link = client.walk(ROOT, &["link"]).unwrap();
    let target = client.call(request::READLINK, |m| {
        m.u32(link);
    });
    assert_eq!(Body(&target.unwrap()).string().unwrap(), b"/no/such/place");
    assert_eq!(client.walk(link, &["a"]), Err(libc::ENOTDIR));

    let file = client.create(ROOT, "file", 0o644).unwrap();
    let directory = client.walk(ROOT, &["d"]).unwrap();
    let linked = client.call(request::LINK, |m| {
        m.u32(directory).u32(file).string(b"second");
    });
    assert!(linked.is_ok());
    assert_eq!(fs::metadata(path("file")).unwrap().nlink(), 2);
    let moved = client.call(request::RENAMEAT, |m| {
        m.u32(ROOT).string(b"file").u32(directory).string(b"first");
    });
    assert!(moved.is_ok());
    // The fid is that of the file, wherever it is.
    client.write(file, 0, b"still").unwrap();
    assert_eq!(fs::read(path("d/first")).unwrap(), b"still");
    let mut unlink = |directory: u32, name: &str, flags: u32| {
        client.call(request::UNLINKAT, |m| {
            m.u32(directory).string(name.as_bytes()).u32(flags);
        })
    };
    assert_eq!(unlink(ROOT, "d", 0x200), Err(libc::ENOTEMPTY));
    assert_eq!(unlink(ROOT, "d", 0), Err(libc::EISDIR));
    for name in ["first", "second"] {
        unlink(directory, name, 0).unwrap();
    }
    unlink(ROOT, "d", 0x200).unwrap();
    for name in ["link", "pipe"] {
        unlink(ROOT, name, 0).unwrap();
    }
    assert_eq!(fs::read_dir(share.path()).unwrap().count(), 0);
    assert_eq!(client.read(file, 0, 5).unwrap(), b"still");
}

#[test]
fn a_directory_is_listed_in_parts() {
    let (share, mut client) = share();
    let mut expected = vec![(".".to_owned(), 0x80), ("..".to_owned(), 0x80)];
    for number in 0..200 {
        let name = format!("file-{number}");
        fs::write(share.path().join(&name), "").unwrap();
        expected.push((name, 0));
    }
    fs::create_dir(share.path().join("z")).unwrap();
    symlink("a", share.path().join("zz")).unwrap();
    expected.extend([("z".to_owned(), 0x80), ("zz".to_owned(), 2)]);
    let directory = client
        .open(&[], libc::O_RDONLY | libc::O_DIRECTORY)
        .unwrap();
    for count in [100, 4000, 1 << 20] {
        let mut found = client.list(directory, count);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{count}");
    }
    assert_eq!(client.read(directory, 0, 10), Err(libc::EISDIR));
}

#[test]
fn a_walk_that_fails_on_its_way_makes_no_fid() {
    let (share, mut client) = share();
    fs::create_dir_all(share.path().join("a/b")).unwrap();
    let fid = client.new_fid();
    let answer = client.walk_to(ROOT, fid, &["a", "b", "c"]).unwrap();
    assert_eq!(Body(&answer).u16().unwrap(), 2);
    assert_eq!(answer.len(), 2 + 2 * 13);
    assert_eq!(client.clunk(fid), Err(libc::EBADF));
    assert_eq!(client.walk_to(ROOT, fid, &["c"]), Err(libc::ENOENT));
    // To itself.
    client.walk_to(ROOT, fid, &["a"]).unwrap();
    client.walk_to(fid, fid, &["b"]).unwrap();
    assert_eq!(client.walk(fid, &["b"]), Err(libc::ENOENT));
    assert_eq!(client.walk_to(ROOT, fid, &["a"]), Err(libc::EBADF));
}

#[test]
fn extended_attributes_are_listed_set_and_removed() {
    let share = TempDir::new_in("/var/tmp").unwrap();
    let mut client = Client::new(share.path(), "attributes");
    client.mount();
    let file = client.create(ROOT, "file", 0o644).unwrap();
    client.set_attribute(ROOT, "user.a", b"one", 0).unwrap();
    let fid = client.walk(ROOT, &["file"]).unwrap();
    assert_eq!(client.get_attribute(fid, "user.a"), Err(libc::ENODATA));
    client.set_attribute(fid, "user.a", b"one", 0).unwrap();
    client.set_attribute(fid, "user.b", b"", 0).unwrap();
    assert_eq!(client.get_attribute(fid, "user.a").unwrap(), b"one");
    assert_eq!(client.get_attribute(fid, "user.b").unwrap(), b"");
    assert_eq!(client.get_attribute(fid, "").unwrap(), b"user.a\0user.b\0");
    let create = libc::XATTR_CREATE;
    assert_eq!(
        client.set_attribute(fid, "user.a", b"two", create),
        Err(libc::EEXIST)
    );
    // How Linux removes one.
    let replace = libc::XATTR_REPLACE;
    client.set_attribute(fid, "user.a", b"", replace).unwrap();
    assert_eq!(client.get_attribute(fid, "").unwrap(), b"user.b\0");
    assert_eq!(
        client.set_attribute(fid, "user.a", b"x", replace),
        Err(libc::ENODATA)
    );
    client.read(file, 0, 1).unwrap();
}

#[test]
fn appended_bytes_go_to_the_end_if_that_is_wanted() {
    let share = tempdir().unwrap();
    let path = share.path().join("log");
    for (append_at_end, expected) in [(true, "hostguest"), (false, "guest")] {
        fs::write(&path, "").unwrap();
        let change = |config: &mut Config| config.append_at_end = append_at_end;
        let mut client = Client::with(share.path(), "append", change);
        client.mount();
        let log = client
            .open(&["log"], libc::O_WRONLY | libc::O_APPEND)
            .unwrap();
        fs::write(&path, "host").unwrap();
        // The guest believes that it is empty.
        client.write(log, 0, b"guest").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}

#[test]
fn locks_are_between_processes_of_the_guest() {
    let (_share, mut client) = share();
    let file = client.create(ROOT, "file", 0o644).unwrap();
    for fid in [file, ROOT] {
        let expected = if fid == file {
            Ok(vec![0])
        } else {
            Err(libc::EBADF)
        };
        let locked = client.call(request::LOCK, |m| {
            m.u32(fid).u8(1).u32(0).u64(0).u64(0).u32(1).string(b"host");
        });
        assert_eq!(locked, expected);
    }
    let lock = client.call(request::GETLOCK, |m| {
        m.u32(file).u8(1).u64(5).u64(6).u32(7).string(b"host");
    });
    let lock = lock.unwrap();
    let mut body = Body(&lock);
    assert_eq!((body.u8().unwrap(), body.u64().unwrap()), (2, 5));
    assert_eq!((body.u64().unwrap(), body.u32().unwrap()), (6, 7));
    assert_eq!(body.string().unwrap(), b"host");
}

#[test]
fn a_read_only_share_cannot_be_changed() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut client = Client::with(share.path(), "read-only", |c| c.share.read_only = true);
    client.mount();
    let file = client.open(&["file"], libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file, 0, 10).unwrap(), b"hello");
    assert_eq!(client.open(&["file"], libc::O_RDWR), Err(libc::EROFS));
    assert_eq!(client.create(ROOT, "new", 0o644), Err(libc::EROFS));
    let fid = client.walk(ROOT, &["file"]).unwrap();
    assert_eq!(
        set_attributes(&mut client, fid, 1, (0, 0)),
        Err(libc::EROFS)
    );
    assert_eq!(fs::read_dir(share.path()).unwrap().count(), 1);
}

#[test]
fn a_version_and_a_reset_close_all() {
    let (share, mut client) = share();
    fs::write(share.path().join("file"), "hello").unwrap();
    let files = || {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        let paths = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
        let name = share.path().file_name().unwrap().to_str().unwrap();
        // The library keeps the root directory.
        let is_shared = |path: &Path| path.to_string_lossy().contains(name) && path != share.path();
        paths.filter(|path| is_shared(path)).collect::<Vec<_>>()
    };
    for round in 0..4 {
        let file = client.open(&["file"], libc::O_RDONLY).unwrap();
        client.new_fid();
        assert_eq!(client.read(file, 0, 10).unwrap(), b"hello");
        if round % 2 == 0 {
            client.version(1 << 16);
        } else {
            client.guest.fs.stop();
            assert_eq!(files(), Vec::<std::path::PathBuf>::new());
            client.guest.start();
            assert_eq!(client.attach(ROOT, 0), Err(libc::EBADF));
            client.version(1 << 16);
        }
        assert_eq!(client.read(file, 0, 10), Err(libc::EBADF));
        client.attach(ROOT, 0).unwrap();
    }
}

#[test]
fn what_cannot_be_shared_is_named() {
    let share = tempdir().unwrap();
    let error = |tag: &str, directory: &Path| {
        let config = Config {
            share: share::Config::new(tag, directory, false),
            append_at_end: false,
        };
        new(config).unwrap_err().to_string()
    };
    assert!(error("t", &share.path().join("missing")).contains("/missing: No such file"));
    assert!(error("", share.path()).contains("1 to 255 bytes"));
    assert!(error(&"x".repeat(256), share.path()).contains("1 to 255 bytes"));

    let client = Client::new(share.path(), "data");
    let traits = client.guest.fs.traits();
    let mut config = [0; 7];
    traits.config.read(0, &mut config);
    assert_eq!((traits.config.len(), config), (6, *b"\x04\0data\0"));
    assert_eq!((traits.kind.id, traits.features), (9, 1));
}
