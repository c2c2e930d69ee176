//! Things that take long to build, in `target/testhost/KIND-KEY`. The key is a hash of what they are built from.
//! Any of them may be deleted at any time: running hosts keep their files open.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// How long something in the cache stays that is not used, because it was built from other inputs: work on two
/// branches by turns should not build all over each time.
const UNUSED: Duration = Duration::from_secs(3600);

/// The folder of all caches and running hosts, `target/testhost`.
#[must_use]
pub fn root() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    // What is below appears in messages: without `tests/..`.
    target.canonicalize().unwrap_or(target).join("testhost")
}

/// What a thing is built from, as a name for it. Another Rust release may hash differently: a rebuild, no harm.
pub fn key(inputs: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Where `kind` with this key is, whether it exists or not.
#[must_use]
pub fn path(kind: &str, key: &str) -> PathBuf {
    root().join(format!("{kind}-{key}"))
}

/// Finds `kind` with this key, and notes that it is used.
///
/// # Errors
/// It is there but cannot be touched.
pub fn find(kind: &str, key: &str) -> Result<Option<PathBuf>> {
    let dir = path(kind, key);
    if !dir.exists() {
        return Ok(None);
    }
    File::open(&dir)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .with_context(|| format!("touch {}", dir.display()))?;
    Ok(Some(dir))
}

/// Finds `kind` with this key, or has `build` make it in a new folder and names that only when it is complete.
/// Removes those of the kind that nobody has used for [`UNUSED`]. Only one process builds at a time.
///
/// # Errors
/// `build`'s; its folder then stays until the next try, to be looked at.
pub fn get(kind: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if let Some(found) = find(kind, key)? {
        return Ok(found);
    }
    let finished = path(kind, key);
    let root = root();
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let _lock = lock(&root.join("lock"))?;
    if finished.exists() {
        return Ok(finished); // another process built it while we waited
    }
    let unfinished = root.join(format!("unfinished-{kind}"));
    remove(&unfinished)?;
    fs::create_dir(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    build(&unfinished)?;
    for file in fs::read_dir(&unfinished)? {
        File::open(file?.path())?.sync_all()?; // a crash must not leave a named folder of empty files
    }
    for other in entries(&root, &format!("{kind}-"))? {
        if fs::metadata(&other)?.modified()?.elapsed()? > UNUSED {
            remove(&other)?;
        }
    }
    fs::rename(&unfinished, &finished)
        .with_context(|| format!("rename {}", unfinished.display()))?;
    Ok(finished)
}

/// The folders in `root` whose names start with `prefix`.
///
/// # Errors
/// `root` cannot be read; one that does not exist has none.
pub fn entries(root: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("read {}", root.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a folder, if it is there.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("testhost: waiting until another testhost has built what it needs");
        file.lock()
            .with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}
