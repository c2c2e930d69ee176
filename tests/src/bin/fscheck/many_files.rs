//! Many files: each that the guest knows takes a descriptor of the monitor, and several requests are served at a time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, anyhow, ensure};

use crate::expect::equal;
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[Check {
    name: "many-files",
    run: many_files,
}];

fn list(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(PathBuf::from(entry?.file_name())))
        .collect()
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
