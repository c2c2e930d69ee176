//! Finds libcap-ng, which the virtiofsd library uses, for static linking.
//!
//! The crate capng asks the linker for a shared library, which static programs cannot have. A
//! folder that holds nothing but a link to the archive, searched first, gives it the archive in
//! both kinds of builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

const ARCHIVE: &str = "libcap-ng.a";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    match find_archive().and_then(|archive| link_folder(&archive)) {
        Ok(folder) => println!("cargo::rustc-link-search=native={}", folder.display()),
        Err(error) => println!("cargo::error={error}"),
    }
}

/// The archive that the target's linker would take.
fn find_archive() -> io::Result<PathBuf> {
    // Set by cargo if the target has a linker of its own.
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let asked = Command::new(&linker)
        .arg(format!("-print-file-name={ARCHIVE}"))
        .output()
        .map_err(|error| io::Error::other(format!("cannot run the linker {linker:?}: {error}")))?;
    let answer = String::from_utf8_lossy(&asked.stdout);
    // It answers by the bare name if there is none.
    let archive = Path::new(answer.trim());
    if archive.is_absolute() {
        println!("cargo::rerun-if-changed={}", archive.display());
        Ok(archive.to_owned())
    } else {
        Err(io::Error::other(format!(
            "{linker:?} finds no {ARCHIVE}: install libcap-ng-dev for the target"
        )))
    }
}

/// A folder that holds only a link to `archive`.
fn link_folder(archive: &Path) -> io::Result<PathBuf> {
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    let folder = Path::new(&out).join("libcap-ng");
    fs::create_dir_all(&folder)?;
    let link = folder.join(ARCHIVE);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(archive, &link)?;
    Ok(folder)
}
