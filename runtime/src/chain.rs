//! What an image stands on, and that on more: files that `proxy` needs as well.
//!
//! An image may be somebody else's work, and names what it likes. So only files beside it count, as for
//! vmm/src/disk/qcow2.rs, which opens them.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use vmm::disk::{MAX_BACKING, backing_file};

/// An image, qcow2 or raw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The file's name, without its directory. No backing file has the same: the image would stand on itself.
    pub name: String,
    /// What it stands on, from the top.
    pub backing: Vec<Backing>,
}

/// A file that an image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The name by which the image above has it.
    pub name: String,
    /// Where it is; absolute, without links.
    pub path: String,
}

/// Looks at the image in a regular file.
///
/// # Errors
/// One line that names the image of the chain, its backing file, and what to do.
pub(crate) fn look(path: &Path) -> Result<Image> {
    let path = path.canonicalize()?;
    let mut image = Image {
        name: utf8(path.file_name().unwrap_or_default().to_str())?.to_owned(),
        backing: Vec::new(),
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut above = (image.name.clone(), path.clone());
    while let Some(name) = stands_on(&above.1, &above.0)? {
        let found = beside(folder, &name)
            .and_then(|path| {
                // This is the end of images that stand on themselves, too.
                ensure!(
                    image.backing.len() < MAX_BACKING,
                    "more images below each other than the {MAX_BACKING} that are allowed: `qemu-img convert` makes \
                     one of all"
                );
                Ok(path)
            })
            .with_context(|| format!("image {:?} stands on {name:?}", above.0))?;
        image.backing.push(Backing {
            name: name.clone(),
            path: found.clone(),
        });
        above = (name, found.into());
    }
    Ok(image)
}

/// The name of what an image stands on. A raw image has no such name: to none whose format is found out
/// does a device let the guest write the beginning of a qcow2 image.
fn stands_on(path: &Path, name: &str) -> Result<Option<String>> {
    let file = File::open(path)?;
    backing_file(&file).with_context(|| format!("image {name:?}"))
}

/// The path of a regular file that is beside an image.
fn beside(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    let found = if name.contains('/') {
        None
    } else {
        let found = path.canonicalize()?;
        (found.parent() == Some(folder)).then_some(found)
    };
    let Some(found) = found else {
        bail!(
            "only files in the image's own directory are allowed, without links to others: copy it there, and name \
             it by `qemu-img rebase -u -b NAME -F FORMAT FILE`"
        );
    };
    // Looked at before it is opened: a FIFO would wait.
    ensure!(
        fs::metadata(&found)?.is_file(),
        "no regular file, which it has to be"
    );
    Ok(utf8(found.to_str())?.to_owned())
}

/// JSON can have nothing else.
fn utf8(name: Option<&str>) -> Result<&str> {
    name.context("its name has to be UTF-8")
}

#[cfg(test)]
#[path = "chain_test.rs"]
mod tests;
