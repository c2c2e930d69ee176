//! A share that the host gives for reading only: everything can be read, and each change is refused.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, removexattr, setxattr,
    utimensat,
};
use rustix::io::Errno;

use crate::expect::{equal, refused};

const CONTENTS: &str = "to be read";

/// Makes what [`check`] expects.
pub(crate) fn prepare(dir: &Path) -> Result<()> {
    fs::write(dir.join("file"), CONTENTS)?;
    setxattr(dir.join("file"), "user.a", b"1", XattrFlags::empty())?;
    fs::create_dir(dir.join("directory"))?;
    symlink("file", dir.join("link")).context("link")
}

/// A change, by name.
type Change = (&'static str, fn(&Path) -> io::Result<()>);

pub(crate) const CHANGES: &[Change] = &[
    ("create", |dir| File::create_new(dir.join("new")).map(drop)),
    ("open-for-writing", |dir| {
        File::options().write(true).open(dir.join("file")).map(drop)
    }),
    ("open-for-appending", |dir| {
        File::options()
            .append(true)
            .open(dir.join("file"))
            .map(drop)
    }),
    ("truncate-on-open", |dir| {
        File::create(dir.join("file")).map(drop)
    }),
    ("unlink", |dir| fs::remove_file(dir.join("file"))),
    ("rename", |dir| {
        fs::rename(dir.join("file"), dir.join("other"))
    }),
    ("mkdir", |dir| fs::create_dir(dir.join("new"))),
    ("rmdir", |dir| fs::remove_dir(dir.join("directory"))),
    ("symlink", |dir| symlink("file", dir.join("new"))),
    ("link", |dir| {
        fs::hard_link(dir.join("file"), dir.join("new"))
    }),
    ("mknod", |dir| {
        let mode = Mode::from_raw_mode(0o600);
        Ok(mknodat(CWD, dir.join("new"), FileType::Fifo, mode, 0)?)
    }),
    ("chmod", |dir| {
        fs::set_permissions(dir.join("file"), PermissionsExt::from_mode(0o777))
    }),
    ("chown", |dir| chown(dir.join("file"), Some(1), Some(1))),
    ("utimens", |dir| {
        let time = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(utimensat(CWD, dir.join("file"), &times, AtFlags::empty())?)
    }),
    ("setxattr", |dir| {
        Ok(setxattr(
            dir.join("file"),
            "user.b",
            b"1",
            XattrFlags::empty(),
        )?)
    }),
    ("removexattr", |dir| {
        Ok(removexattr(dir.join("file"), "user.a")?)
    }),
];

/// Tries each change.
pub(crate) fn check(dir: &Path) -> Vec<(&'static str, Result<()>)> {
    let try_change = |(name, change): &Change| {
        let result = refused(name, change(dir), Errno::ROFS).and_then(|()| unchanged(dir));
        (*name, result)
    };
    CHANGES.iter().map(try_change).collect()
}

fn unchanged(dir: &Path) -> Result<()> {
    equal(
        "contents",
        fs::read_to_string(dir.join("link"))?,
        CONTENTS.to_owned(),
    )?;
    equal("entries", fs::read_dir(dir)?.count(), 3)
}
