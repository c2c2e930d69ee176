//! Owners, what other users may do, and what a change of a file takes from it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use crate::expect::{equal, refused};
use crate::operation::{Operation, User, allowed, denied};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "chown",
        run: change_owner,
    },
    Check {
        name: "permissions",
        run: permissions,
    },
    Check {
        name: "owners-of-new-files",
        run: owners_of_new_files,
    },
    Check {
        name: "sticky-directory",
        run: sticky_directory,
    },
    Check {
        name: "set-id-bits-go-on-write",
        run: set_id_bits_go_on_write,
    },
    Check {
        name: "set-id-bits-go-on-chown",
        run: set_id_bits_go_on_chown,
    },
    Check {
        name: "file-capabilities",
        run: file_capabilities,
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
const BOB_WITH_ALICE: User = User {
    uid: 1001,
    gid: 1000,
};

/// An empty file with this owner and mode.
fn file(place: &Place, name: &str, owner: User, mode: u32) -> Result<PathBuf> {
    let path = place.path(name);
    File::create_new(&path)?;
    chown(&path, Some(owner.uid), Some(owner.gid))?;
    set_mode(&path, mode)?;
    Ok(path)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(mode))?)
}

fn owner(path: &Path) -> Result<(u32, u32)> {
    let stat = fs::symlink_metadata(path)?;
    Ok((stat.uid(), stat.gid()))
}

fn change_owner(place: &Place) -> Result<()> {
    let path = file(place, "file", User::ROOT, 0o644)?;
    for user in [(1000, 1000), (65534, 65534), (100_000, 4_000_000_000)] {
        chown(&path, Some(user.0), Some(user.1))?;
        equal("owner", owner(&path)?, user)?;
    }
    chown(&path, None, Some(5))?;
    equal("owner", owner(&path)?, (100_000, 5))?;
    let link = place.path("link");
    std::os::unix::fs::symlink("file", &link)?;
    std::os::unix::fs::lchown(&link, Some(7), Some(8))?;
    equal("the link's owner", owner(&link)?, (7, 8))?;
    equal("the file's owner", owner(&path)?, (100_000, 5))?;
    denied(ALICE, Operation::Chown, &path, Errno::PERM)
}

fn permissions(place: &Place) -> Result<()> {
    use Operation::{Chmod, Create, Delete, List, Read, Write};
    let path = file(place, "file", ALICE, 0o640)?;
    allowed(ALICE, Write, &path)?;
    allowed(BOB_WITH_ALICE, Read, &path)?;
    denied(BOB_WITH_ALICE, Write, &path, Errno::ACCESS)?;
    denied(BOB, Read, &path, Errno::ACCESS)?;
    denied(BOB, Chmod, &path, Errno::PERM)?;
    denied(ALICE, Delete, &path, Errno::ACCESS)?;
    denied(ALICE, Create, &place.path("new"), Errno::ACCESS)?;
    allowed(ALICE, Chmod, &path)?;
    allowed(BOB, Write, &path)?;

    let dir = place.path("dir");
    fs::create_dir(&dir)?;
    chown(&dir, Some(ALICE.uid), Some(ALICE.gid))?;
    File::create(dir.join("inside"))?;
    set_mode(&dir, 0o711)?;
    allowed(ALICE, List, &dir)?;
    denied(BOB, List, &dir, Errno::ACCESS)?;
    allowed(BOB, Read, &dir.join("inside"))?;
    set_mode(&dir, 0o700)?;
    denied(BOB, Read, &dir.join("inside"), Errno::ACCESS)?;
    allowed(User::ROOT, Read, &dir.join("inside"))
}

fn owners_of_new_files(place: &Place) -> Result<()> {
    set_mode(&place.dir, 0o777)?;
    let path = place.path("of-alice");
    allowed(ALICE, Operation::Create, &path)?;
    equal("owner", owner(&path)?, (1000, 1000))?;
    // A set-group-id directory gives its group to what is made in it.
    let dir = place.path("of-the-group");
    fs::create_dir(&dir)?;
    chown(&dir, Some(0), Some(50))?;
    set_mode(&dir, 0o2777)?;
    allowed(ALICE, Operation::Create, &dir.join("file"))?;
    equal("owner", owner(&dir.join("file"))?, (1000, 50))?;
    fs::create_dir(dir.join("below"))?;
    let below = fs::metadata(dir.join("below"))?;
    equal(
        "group and set-group-id bit",
        (below.gid(), below.mode() & 0o2000),
        (50, 0o2000),
    )
}

fn sticky_directory(place: &Place) -> Result<()> {
    set_mode(&place.dir, 0o1777)?;
    let path = file(place, "file", ALICE, 0o666)?;
    denied(BOB, Operation::Delete, &path, Errno::PERM)?;
    allowed(ALICE, Operation::Delete, &path)
}

fn set_id_bits_go_on_write(place: &Place) -> Result<()> {
    let path = file(place, "file", User::ROOT, 0o6777)?;
    allowed(ALICE, Operation::Write, &path)?;
    equal("mode", fs::metadata(&path)?.mode() & 0o7777, 0o777)
}

fn set_id_bits_go_on_chown(place: &Place) -> Result<()> {
    let path = file(place, "file", User::ROOT, 0o6755)?;
    chown(&path, Some(ALICE.uid), Some(ALICE.gid))?;
    equal("mode", fs::metadata(&path)?.mode() & 0o7777, 0o755)
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
