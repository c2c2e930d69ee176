//! Images of QEMU's, which may stand on others.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use devices::dev::blk::{Cache, Image, Ordered};
use imago::qcow2::Qcow2;
use imago::{
    FormatAccess, FormatDriverBuilder, Storage, StorageOpenOptions, file,
    format::{Format, gate::ImplicitOpenGate},
};

use super::backing::MAX_BACKING;
use super::{lock, qcow2_check};

/// Opens an image whose file is open already, and is locked, with what it stands on.
///
/// # Errors
/// When it is broken, uses what we do not know, or names a file that is not beside it.
pub(super) fn open(file: File, path: &Path, cache: Cache, read_only: bool) -> Result<Image> {
    let direct = cache == Cache::None;
    let path = path.canonicalize()?;
    let options = StorageOpenOptions::new()
        .filename(&path)
        .write(!read_only)
        .direct(direct);
    qcow2_check::check(&File::open(&path)?, !read_only).context("qcow2 image")?;
    let storage = file::File::from_open_file(file, options)?;
    let storage = if read_only {
        Ordered::read_only(storage)
    } else {
        Ordered::new(storage, cache != Cache::Unsafe).context("qcow2 image")?
    };
    let mut chain = Chain {
        folder: path.parent().unwrap_or(Path::new("/")).to_owned(),
        locked: Vec::new(),
    };
    let image = Qcow2::<Ordered<file::File>>::builder(storage)
        .write(!read_only)
        .storage_open_options(StorageOpenOptions::new().direct(direct))
        .open(Gate(&mut chain))
        .context("qcow2 image")?;
    Ok(Image {
        access: FormatAccess::new(image),
        locked: chain.locked,
    })
}

/// The images that one stands on.
struct Chain {
    /// Where all of them are.
    folder: PathBuf,
    /// Those that are open: nobody may write to them.
    locked: Vec<File>,
}

impl Chain {
    /// Whether a file may be opened: an image is somebody else's work, and names what it likes.
    fn allow(&mut self, path: &Path) -> Result<()> {
        ensure!(
            self.locked.len() < MAX_BACKING,
            "more images below each other than the {MAX_BACKING} that are allowed"
        );
        let found = path.canonicalize()?;
        ensure!(
            found.parent() == Some(&self.folder),
            "not beside the image that names it"
        );
        ensure!(fs::metadata(&found)?.is_file(), "not a file");
        let file = File::open(&found)?;
        qcow2_check::check(&file, false)?;
        lock::lock(&file, false)?;
        self.locked.push(file);
        Ok(())
    }
}

struct Gate<'a>(&'a mut Chain);

impl<S: Storage + 'static> ImplicitOpenGate<S> for Gate<'_> {
    fn open_format<F: FormatDriverBuilder<S>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<S>> {
        if !matches!(F::FORMAT, Format::Raw | Format::Qcow2) {
            return Err(io::Error::other("neither raw nor qcow2"));
        }
        Ok(FormatAccess::new(builder.write(false).open(Gate(self.0))?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<S> {
        let path = options.get_filename().unwrap_or(Path::new("")).to_owned();
        self.0
            .allow(&path)
            .map_err(|error| io::Error::other(format!("{}: {error:#}", path.display())))?;
        S::open(options.write(false))
    }
}

#[cfg(test)]
#[path = "qcow2_test.rs"]
mod tests;
