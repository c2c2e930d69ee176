//! Attributes of files.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags, getxattr, listxattr, lsetxattr,
    removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use crate::expect::{equal, refused};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "mode",
        run: mode,
    },
    Check {
        name: "times",
        run: times,
    },
    Check {
        name: "times-of-symlinks",
        run: times_of_symlinks,
    },
    Check {
        name: "user-attributes",
        run: user_attributes,
    },
    Check {
        name: "trusted-attributes",
        run: trusted_attributes,
    },
    Check {
        name: "file-capabilities",
        run: file_capabilities,
    },
];

fn mode(place: &Place) -> Result<()> {
    let path = place.path("file");
    let file = File::create(&path)?;
    for mode in [0o000, 0o644, 0o4755, 0o2711, 0o7777] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        equal("mode", file.metadata()?.mode() & 0o7777, mode)?;
    }
    Ok(())
}

fn times(place: &Place) -> Result<()> {
    let path = place.path("file");
    fs::write(&path, "x")?;
    let set = |access, modification| {
        let times = Timestamps {
            last_access: access,
            last_modification: modification,
        };
        utimensat(CWD, &path, &times, AtFlags::empty())
    };
    let read = || -> Result<_> {
        let stat = fs::metadata(&path)?;
        Ok((
            (stat.atime(), stat.atime_nsec()),
            (stat.mtime(), stat.mtime_nsec()),
        ))
    };
    set(
        at(1_000_000_000, 123_456_789),
        at(2_000_000_000, 987_654_321),
    )?;
    equal(
        "times",
        read()?,
        ((1_000_000_000, 123_456_789), (2_000_000_000, 987_654_321)),
    )?;
    set(at(0, UTIME_OMIT), at(7, 1))?;
    equal("times", read()?, ((1_000_000_000, 123_456_789), (7, 1)))?;
    let changed = fs::metadata(&path)?.ctime();
    ensure!(changed > 2_000_000, "the time of change is {changed}");
    fs::write(&path, "y")?;
    ensure!(
        read()?.1 != (7, 1),
        "writing did not change the time of modification"
    );
    Ok(())
}

fn times_of_symlinks(place: &Place) -> Result<()> {
    let (link, target) = (place.path("link"), place.path("target"));
    fs::write(&target, "x")?;
    symlink("target", &link)?;
    let times = Timestamps {
        last_access: at(3, 0),
        last_modification: at(5, 9),
    };
    utimensat(CWD, &link, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    equal("the link's", fs::symlink_metadata(&link)?.mtime(), 5)?;
    ensure!(
        fs::metadata(&target)?.mtime() != 5,
        "the target's time was changed"
    );
    Ok(())
}

fn at(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    }
}

fn user_attributes(place: &Place) -> Result<()> {
    let path = place.path("file");
    fs::write(&path, "x")?;
    refused("a missing attribute", value(&path, "user.a"), Errno::NODATA)?;
    setxattr(&path, "user.a", b"1", XattrFlags::CREATE)?;
    let again = setxattr(&path, "user.a", b"2", XattrFlags::CREATE);
    refused("making it twice", again, Errno::EXIST)?;
    let missing = setxattr(&path, "user.b", b"2", XattrFlags::REPLACE);
    refused("replacing a missing one", missing, Errno::NODATA)?;
    setxattr(&path, "user.a", b"two\0parts", XattrFlags::REPLACE)?;
    equal("value", value(&path, "user.a")?, b"two\0parts".to_vec())?;
    let large = vec![b'l'; 2000];
    setxattr(&path, "user.large", &large, XattrFlags::empty())?;
    equal("large value", value(&path, "user.large")?, large)?;
    let mut short = [0; 4];
    let read = getxattr(&path, "user.large", &mut short[..]);
    refused("a buffer too short", read, Errno::RANGE)?;
    equal(
        "names",
        user_names(&path)?,
        vec!["user.a".into(), "user.large".into()],
    )?;
    removexattr(&path, "user.a")?;
    equal("names", user_names(&path)?, vec!["user.large".to_owned()])?;
    symlink("file", place.path("link"))?;
    let of_link = lsetxattr(place.path("link"), "user.a", b"1", XattrFlags::empty());
    refused("an attribute of a symlink", of_link, Errno::PERM)
}

/// These are for who administers the host; others see that at once, as in a container.
fn trusted_attributes(place: &Place) -> Result<()> {
    let path = place.path("file");
    fs::write(&path, "x")?;
    let name = "trusted.overlay.opaque";
    match setxattr(&path, name, b"y", XattrFlags::empty()) {
        Ok(()) => equal("value", value(&path, name)?, b"y".to_vec()),
        refusal => refused("a trusted attribute", refusal, Errno::PERM),
    }
}

/// cap_net_raw+ep, as ping has it: a vfs_cap_data of version 2 (linux/capability.h).
fn file_capabilities(place: &Place) -> Result<()> {
    const NET_RAW: u32 = 1 << 13;
    let path = place.path("file");
    fs::write(&path, "x")?;
    let words = [0x0200_0001, NET_RAW, 0, 0, 0];
    let capability: Vec<u8> = words
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    let name = "security.capability";
    setxattr(&path, name, &capability, XattrFlags::empty())?;
    equal("value", value(&path, name)?, capability)?;
    fs::write(&path, "changed")?;
    refused(
        "the capability of a changed file",
        value(&path, name),
        Errno::NODATA,
    )
}

fn value(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn user_names(path: &Path) -> Result<Vec<String>> {
    let mut list = vec![0; 65536];
    let length = listxattr(path, &mut list[..]).context("listxattr")?;
    let names = list[..length]
        .split(|&byte| byte == 0)
        .map(String::from_utf8_lossy);
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with("user."))
        .map(Into::into)
        .collect();
    names.sort();
    Ok(names)
}
