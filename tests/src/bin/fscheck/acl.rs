//! POSIX access control lists, set as setfacl(1) does it and tried as the users that they name.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Result;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use crate::expect::equal;
use crate::operation::{Operation, User, allowed, denied};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "acl",
        run: access,
    },
    Check {
        name: "acl-mask",
        run: mask,
    },
    Check {
        name: "acl-default",
        run: default,
    },
];

const ALICE: User = User {
    uid: 1000,
    gid: 1000,
};
const BOB: User = User {
    uid: 1001,
    gid: 1001,
};
const CAROL: User = User {
    uid: 1002,
    gid: 1002,
};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Tags of entries (linux/posix_acl.h).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

/// Tag, permissions, user or group.
type Entry = (u16, u16, u32);

/// The attribute's value (linux/posix_acl_xattr.h): version 2, then the entries, sorted.
fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set(path: &Path, name: &str, entries: &[Entry]) -> Result<()> {
    setxattr(path, name, &encode(entries), XattrFlags::empty())?;
    equal("the list", get(path, name)?, encode(entries))
}

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 4096];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o777)
}

fn private_file(place: &Place) -> Result<std::path::PathBuf> {
    let path = place.path("file");
    File::create_new(&path)?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    Ok(path)
}

fn access(place: &Place) -> Result<()> {
    let path = private_file(place)?;
    denied(ALICE, Operation::Read, &path, Errno::ACCESS)?;
    let entries = [
        (USER_OBJ, 6, NOBODY),
        (USER, 6, ALICE.uid),
        (GROUP_OBJ, 0, NOBODY),
        (GROUP, 4, BOB.gid),
        (MASK, 6, NOBODY),
        (OTHER, 0, NOBODY),
    ];
    set(&path, ACCESS, &entries)?;
    equal("mode, the mask in the group's place", mode(&path)?, 0o660)?;
    allowed(ALICE, Operation::Write, &path)?;
    allowed(BOB, Operation::Read, &path)?;
    denied(BOB, Operation::Write, &path, Errno::ACCESS)?;
    denied(CAROL, Operation::Read, &path, Errno::ACCESS)
}

/// chmod(2) of the group's permissions changes the mask, and so what the named user has.
fn mask(place: &Place) -> Result<()> {
    let path = private_file(place)?;
    let entries = [
        (USER_OBJ, 6, NOBODY),
        (USER, 6, ALICE.uid),
        (GROUP_OBJ, 0, NOBODY),
        (MASK, 6, NOBODY),
        (OTHER, 0, NOBODY),
    ];
    set(&path, ACCESS, &entries)?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640))?;
    allowed(ALICE, Operation::Read, &path)?;
    denied(ALICE, Operation::Write, &path, Errno::ACCESS)?;
    let mut masked = entries;
    masked[3].1 = 4;
    equal("the list after chmod", get(&path, ACCESS)?, encode(&masked))
}

fn default(place: &Place) -> Result<()> {
    let dir = place.path("dir");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o755))?;
    let entries = [
        (USER_OBJ, 7, NOBODY),
        (USER, 6, ALICE.uid),
        (GROUP_OBJ, 0, NOBODY),
        (MASK, 7, NOBODY),
        (OTHER, 0, NOBODY),
    ];
    set(&dir, DEFAULT, &entries)?;
    let path = dir.join("file");
    File::create_new(&path)?;
    // Made with 0666: neither user, nor mask, nor others get more than that.
    equal("mode of a new file", mode(&path)?, 0o660)?;
    allowed(ALICE, Operation::Write, &path)?;
    denied(BOB, Operation::Read, &path, Errno::ACCESS)?;
    fs::create_dir(dir.join("below"))?;
    equal(
        "the list of a new directory",
        get(&dir.join("below"), DEFAULT)?,
        encode(&entries),
    )
}
