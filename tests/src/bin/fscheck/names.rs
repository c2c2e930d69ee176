//! Names of files, and directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::expect::{equal, refused};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "rename",
        run: rename,
    },
    Check {
        name: "rename-directories",
        run: rename_directories,
    },
    Check {
        name: "rename-flags",
        run: rename_flags,
    },
    Check {
        name: "hard-links",
        run: hard_links,
    },
    Check {
        name: "symlinks",
        run: symlinks,
    },
    Check {
        name: "directories",
        run: directories,
    },
    Check {
        name: "delete-while-listing",
        run: delete_while_listing,
    },
    Check {
        name: "many-files",
        run: many_files,
    },
    Check {
        name: "long-names",
        run: long_names,
    },
    Check {
        name: "deep-paths",
        run: deep_paths,
    },
    Check {
        name: "any-bytes-in-names",
        run: any_bytes_in_names,
    },
];

fn rename(place: &Place) -> Result<()> {
    let (a, b) = (place.path("a"), place.path("b"));
    fs::write(&a, "a")?;
    fs::write(&b, "b")?;
    let inode = fs::metadata(&a)?.ino();
    let open = File::open(&b)?;
    fs::rename(&a, &b)?;
    refused("opening the old name", File::open(&a), Errno::NOENT)?;
    equal("contents under the new name", fs::read(&b)?, b"a".to_vec())?;
    equal("inode", fs::metadata(&b)?.ino(), inode)?;
    equal(
        "what the open file was",
        std::io::read_to_string(open)?,
        "b".to_owned(),
    )?;
    refused("renaming what is missing", fs::rename(&a, &b), Errno::NOENT)
}

fn rename_directories(place: &Place) -> Result<()> {
    let (from, to, full) = (place.path("from"), place.path("to"), place.path("full"));
    fs::create_dir_all(from.join("below"))?;
    fs::write(from.join("below/file"), "x")?;
    fs::create_dir(&to)?;
    fs::create_dir_all(full.join("below"))?;
    refused(
        "renaming over a full directory",
        fs::rename(&from, &full),
        Errno::NOTEMPTY,
    )?;
    refused(
        "renaming into itself",
        fs::rename(&from, from.join("below/it")),
        Errno::INVAL,
    )?;
    fs::write(place.path("file"), "")?;
    refused(
        "a directory over a file",
        fs::rename(&from, place.path("file")),
        Errno::NOTDIR,
    )?;
    refused(
        "a file over a directory",
        fs::rename(place.path("file"), &to),
        Errno::ISDIR,
    )?;
    fs::rename(&from, &to)?;
    equal(
        "a file below",
        fs::read(to.join("below/file"))?,
        b"x".to_vec(),
    )?;
    fs::rename(to.join("below"), place.path("moved"))?;
    equal(
        "its parent",
        fs::metadata(place.path("moved/.."))?.ino(),
        fs::metadata(&place.dir)?.ino(),
    )
}

fn rename_flags(place: &Place) -> Result<()> {
    let (a, b, c) = (place.path("a"), place.path("b"), place.path("c"));
    fs::write(&a, "a")?;
    fs::create_dir(&b)?;
    let with = |from: &Path, to: &Path, flags| renameat_with(CWD, from, CWD, to, flags);
    refused(
        "RENAME_NOREPLACE",
        with(&a, &b, RenameFlags::NOREPLACE),
        Errno::EXIST,
    )?;
    with(&a, &c, RenameFlags::NOREPLACE).context("RENAME_NOREPLACE to a free name")?;
    with(&c, &b, RenameFlags::EXCHANGE).context("RENAME_EXCHANGE")?;
    equal("contents after the exchange", fs::read(&b)?, b"a".to_vec())?;
    ensure!(
        fs::metadata(&c)?.is_dir(),
        "the directory did not change its name"
    );
    refused(
        "an exchange with nothing",
        with(&b, &a, RenameFlags::EXCHANGE),
        Errno::NOENT,
    )
}

fn hard_links(place: &Place) -> Result<()> {
    let (first, second) = (place.path("first"), place.path("second"));
    fs::write(&first, "1")?;
    equal("links", fs::metadata(&first)?.nlink(), 1)?;
    fs::hard_link(&first, &second)?;
    equal(
        "inode",
        fs::metadata(&second)?.ino(),
        fs::metadata(&first)?.ino(),
    )?;
    equal("links", fs::metadata(&first)?.nlink(), 2)?;
    fs::write(&second, "2")?;
    equal(
        "contents by the first name",
        fs::read(&first)?,
        b"2".to_vec(),
    )?;
    refused(
        "a link over a file",
        fs::hard_link(&first, &second),
        Errno::EXIST,
    )?;
    refused(
        "a link to a directory",
        fs::hard_link(&place.dir, place.path("d")),
        Errno::PERM,
    )?;
    fs::remove_file(&first)?;
    equal("links after removal", fs::metadata(&second)?.nlink(), 1)?;
    equal("contents after removal", fs::read(&second)?, b"2".to_vec())
}

fn symlinks(place: &Place) -> Result<()> {
    let link = place.path("link");
    symlink("target", &link)?;
    equal(
        "where it points",
        fs::read_link(&link)?,
        PathBuf::from("target"),
    )?;
    equal("its size", fs::symlink_metadata(&link)?.len(), 6)?;
    refused("following it to nowhere", File::open(&link), Errno::NOENT)?;
    fs::write(place.path("target"), "through")?;
    equal("contents through it", fs::read(&link)?, b"through".to_vec())?;
    refused("a link over a link", symlink("x", &link), Errno::EXIST)?;
    symlink("loop", place.path("loop"))?;
    refused(
        "following a loop",
        File::open(place.path("loop")),
        Errno::LOOP,
    )?;
    let long = "t/".repeat(2000);
    symlink(&long, place.path("long"))?;
    equal(
        "a long target",
        fs::read_link(place.path("long"))?,
        PathBuf::from(&long),
    )?;
    fs::remove_file(&link)?;
    equal(
        "the target stays",
        fs::read(place.path("target"))?,
        b"through".to_vec(),
    )
}

fn directories(place: &Place) -> Result<()> {
    let dir = place.path("dir");
    fs::create_dir(&dir)?;
    refused("making it twice", fs::create_dir(&dir), Errno::EXIST)?;
    for name in ["one", "two", "three"] {
        fs::create_dir(dir.join(name))?;
    }
    equal(
        "entries",
        list(&dir)?,
        ["one", "two", "three"].map(PathBuf::from).into(),
    )?;
    fs::rename(dir.join("two"), dir.join("four"))?;
    fs::remove_dir(dir.join("one"))?;
    fs::write(dir.join("five"), "")?;
    equal(
        "entries",
        list(&dir)?,
        ["three", "four", "five"].map(PathBuf::from).into(),
    )?;
    refused(
        "removing a full directory",
        fs::remove_dir(&dir),
        Errno::NOTEMPTY,
    )?;
    refused(
        "removing a file as a directory",
        fs::remove_dir(dir.join("five")),
        Errno::NOTDIR,
    )?;
    refused(
        "removing a directory as a file",
        fs::remove_file(dir.join("four")),
        Errno::ISDIR,
    )?;
    refused(
        "a file as a directory",
        File::open(dir.join("five/x")),
        Errno::NOTDIR,
    )?;
    fs::remove_dir_all(&dir)?;
    refused("listing what is gone", fs::read_dir(&dir), Errno::NOENT)
}

fn list(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(PathBuf::from(entry?.file_name())))
        .collect()
}

/// As `rm -r` does it: the directory stays open and is read on. Its entries fill several buffers.
fn delete_while_listing(place: &Place) -> Result<()> {
    for number in 0..300 {
        File::create_new(place.path(&format!("{number:0200}")))?;
    }
    let mut seen = 0;
    for entry in fs::read_dir(&place.dir)? {
        fs::remove_file(entry?.path())?;
        seen += 1;
    }
    equal("files seen", seen, 300)?;
    equal("files left", fs::read_dir(&place.dir)?.count(), 0)
}

/// Directories that are filled at the same time.
const TREES: u32 = 8;

/// As archives are unpacked, looked through and deleted, several at a time. One after the other, each request would cost
/// the guest two halts and a dozen exits: in the emulated host that is ten milliseconds.
fn many_files(place: &Place) -> Result<()> {
    let files = place.files.div_ceil(TREES);
    thread::scope(|scope| {
        let trees: Vec<_> = (0..TREES)
            .map(|tree| place.path(&tree.to_string()))
            .map(|dir| scope.spawn(move || directory_of_files(&dir, files)))
            .collect();
        trees.into_iter().try_for_each(|tree| {
            tree.join()
                .map_err(|_| anyhow!("a thread panicked, see standard error"))?
        })
    })
}

/// Each file is made, listed and removed; every hundredth has contents.
fn directory_of_files(dir: &Path, files: u32) -> Result<()> {
    fs::create_dir(dir)?;
    let names: BTreeSet<PathBuf> = (0..files).map(|n| format!("{n:05}").into()).collect();
    let with_contents = || names.iter().step_by(100);
    for name in &names {
        File::create_new(dir.join(name))?;
    }
    for name in with_contents() {
        fs::write(dir.join(name), name.as_os_str().as_bytes())?;
    }
    ensure!(list(dir)? == names, "the listing is not what was made");
    for name in with_contents() {
        let found = fs::read(dir.join(name))?;
        equal("contents", found, name.as_os_str().as_bytes().to_vec())?;
    }
    for name in &names {
        fs::remove_file(dir.join(name))?;
    }
    equal("files left", fs::read_dir(dir)?.count(), 0)
}

fn long_names(place: &Place) -> Result<()> {
    let longest = place.path(&"n".repeat(255));
    fs::write(&longest, "x")?;
    equal("contents", fs::read(&longest)?, b"x".to_vec())?;
    equal(
        "listed name",
        list(&place.dir)?,
        ["n".repeat(255).into()].into(),
    )?;
    let longer = place.path(&"n".repeat(256));
    refused(
        "a name of 256 bytes",
        File::create(&longer),
        Errno::NAMETOOLONG,
    )?;
    refused(
        "a directory's name of 256 bytes",
        fs::create_dir(&longer),
        Errno::NAMETOOLONG,
    )?;
    let path = place.path(&"d/".repeat(2048));
    refused("a path of 4096 bytes", File::open(path), Errno::NAMETOOLONG)
}

fn deep_paths(place: &Place) -> Result<()> {
    let name = "d".repeat(180);
    let mut path = place.dir.canonicalize()?;
    for _ in 0..20 {
        path.push(&name);
        fs::create_dir(&path)?;
    }
    fs::write(path.join("file"), "deep")?;
    equal("contents", fs::read(path.join("file"))?, b"deep".to_vec())?;
    std::env::set_current_dir(&path)?;
    let here = std::env::current_dir();
    // Not in what will be removed.
    std::env::set_current_dir("/")?;
    equal("where we are", here?, path)
}

/// All bytes but the slash and zero, sixteen in a name.
fn any_bytes_in_names(place: &Place) -> Result<()> {
    let bytes: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    let names: BTreeSet<PathBuf> = bytes
        .chunks(16)
        .map(|name| OsStr::from_bytes(name).into())
        .collect();
    for name in &names {
        fs::write(place.dir.join(name), name.as_os_str().as_bytes())?;
    }
    ensure!(
        list(&place.dir)? == names,
        "the listing is not what was made"
    );
    for name in &names {
        let found = fs::read(place.dir.join(name))?;
        equal("contents", found, name.as_os_str().as_bytes().to_vec())?;
    }
    Ok(())
}
