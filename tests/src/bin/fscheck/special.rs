//! Locks, and files that are no files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, makedev, mknodat};
use rustix::io::Errno;

use crate::expect::{equal, refused};
use crate::operation::{Operation, User, allowed, denied};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "flock",
        run: whole_file_locks,
    },
    Check {
        name: "fcntl-locks",
        run: record_locks,
    },
    Check {
        name: "fifo",
        run: fifo,
    },
    Check {
        name: "device-nodes",
        run: device_nodes,
    },
    Check {
        name: "unix-socket",
        run: unix_socket,
    },
];

fn whole_file_locks(place: &Place) -> Result<()> {
    let first = File::create_new(place.path("file"))?;
    let second = File::open(place.path("file"))?;
    flock(&first, FlockOperation::LockExclusive)?;
    let shared = FlockOperation::NonBlockingLockShared;
    refused(
        "a lock that another has",
        flock(&second, shared),
        Errno::WOULDBLOCK,
    )?;
    flock(&first, FlockOperation::LockShared)?;
    flock(&second, shared)?;
    drop(first);
    Ok(flock(&second, FlockOperation::NonBlockingLockExclusive)?)
}

fn record_locks(place: &Place) -> Result<()> {
    let path = place.path("file");
    let file = File::create_new(&path)?;
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive)?;
    denied(User::ROOT, Operation::Lock, &path, Errno::AGAIN)?;
    rustix::fs::fcntl_lock(&file, FlockOperation::Unlock)?;
    allowed(User::ROOT, Operation::Lock, &path)
}

fn fifo(place: &Place) -> Result<()> {
    let path = place.path("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    ensure!(fs::metadata(&path)?.file_type().is_fifo(), "it is no FIFO");
    let writing = path.clone();
    let writer = thread::spawn(move || fs::write(writing, "through the pipe"));
    equal("what came", fs::read(&path)?, b"through the pipe".to_vec())?;
    Ok(writer
        .join()
        .map_err(|_| anyhow!("the writer panicked"))??)
}

fn device_nodes(place: &Place) -> Result<()> {
    let node = |name, kind, major, minor| -> Result<_> {
        let path = place.path(name);
        mknodat(
            CWD,
            &path,
            kind,
            Mode::from_raw_mode(0o600),
            makedev(major, minor),
        )?;
        equal(
            "device number",
            fs::metadata(&path)?.rdev(),
            makedev(major, minor),
        )?;
        Ok(path)
    };
    let block = node("block", FileType::BlockDevice, 259, 70_000)?;
    ensure!(
        fs::metadata(block)?.file_type().is_block_device(),
        "it is no block device"
    );
    // Linux, Documentation/admin-guide/devices.txt: 1:5 is /dev/zero, 1:3 /dev/null.
    let mut zeros = [1; 16];
    File::open(node("zero", FileType::CharacterDevice, 1, 5)?)?.read_exact(&mut zeros)?;
    equal("zeros", zeros, [0; 16])?;
    let null = node("null", FileType::CharacterDevice, 1, 3)?;
    File::options()
        .write(true)
        .open(&null)?
        .write_all(b"gone")?;
    equal("what is in null", fs::read(null)?, Vec::new())
}

fn unix_socket(place: &Place) -> Result<()> {
    let path = place.path("socket");
    let listener = UnixListener::bind(&path)?;
    ensure!(
        fs::metadata(&path)?.file_type().is_socket(),
        "it is no socket"
    );
    let mut client = UnixStream::connect(&path)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"ping")?;
    let mut received = [0; 4];
    server.read_exact(&mut received)?;
    equal("what came", &received, b"ping")?;
    drop(listener);
    refused(
        "connecting to a closed socket",
        UnixStream::connect(&path),
        Errno::CONNREFUSED,
    )
}
