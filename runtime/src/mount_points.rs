//! Making mount points in an image that the monitor cannot write to, as runc makes them in one of its own.
//!
//! The image may be anybody's: its links lead nowhere but into it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, chmodat, mkdirat, open, openat, openat2};
use rustix::io::{Errno, Result};

use crate::split::MountPoint;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Makes those that are missing in the image at `root`. For one that cannot be made init fails, and says where it is.
pub(crate) fn make(root: &Path, points: &[MountPoint]) {
    for point in points {
        let is_file = |source: &Path| fs::metadata(source).is_ok_and(|found| !found.is_dir());
        let is_file = point.source.as_deref().is_some_and(is_file);
        let _ = make_one(root, Path::new(&point.path), is_file, point.mode);
    }
}

fn make_one(root: &Path, path: &Path, is_file: bool, mode: u32) -> Result<()> {
    let root = open(root, DIRECTORY, Mode::empty())?;
    let find =
        |path: &Path, flags| openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    let mut parent = find(Path::new("."), DIRECTORY)?;
    let mut at = PathBuf::new();
    for (index, name) in names.iter().enumerate() {
        at.push(name);
        let is_last = index + 1 == names.len();
        let flags = if is_last {
            OFlags::PATH | OFlags::CLOEXEC
        } else {
            DIRECTORY
        };
        parent = match find(&at, flags) {
            Err(Errno::NOENT) if is_last && is_file => {
                let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&parent, *name, new, Mode::from_raw_mode(0o644))?
            }
            Err(Errno::NOENT) => {
                mkdirat(&parent, *name, Mode::from_raw_mode(0o755))?;
                if is_last {
                    // Whatever the umask is.
                    chmodat(&parent, *name, Mode::from_raw_mode(mode), AtFlags::empty())?;
                }
                find(&at, DIRECTORY)?
            }
            found => found?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::tempdir;

    use super::*;

    #[test]
    fn what_is_missing_is_made_and_nothing_else() {
        let place = tempdir().unwrap();
        let image = place.path().join("image");
        fs::create_dir_all(image.join("real")).unwrap();
        fs::write(place.path().join("source"), "").unwrap();
        fs::write(image.join("there"), "x").unwrap();
        symlink("/real", image.join("link")).unwrap();
        symlink("../../..", image.join("up")).unwrap();
        symlink("/nowhere", image.join("dangling")).unwrap();
        let point = |path: &str, source: Option<&str>| MountPoint {
            path: path.to_owned(),
            source: source.map(|name| place.path().join(name)),
            mode: 0o1777,
        };
        let points = [
            point("/a/b/c", None),
            point("/link/data", Some(".")),
            point("/up/file", Some("source")),
            point("/there", Some("source")),
            point("/dangling/x", None),
            point("/", None),
        ];
        for _ in 0..2 {
            make(&image, &points);
        }
        let mode = |path| fs::metadata(image.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a/b"), mode("a/b/c")), (0o755, 0o1777));
        assert!(image.join("real/data").is_dir());
        assert!(image.join("file").is_file());
        assert_eq!(fs::read(image.join("there")).unwrap(), b"x");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        assert!(!image.join("nowhere").exists());
    }
}
