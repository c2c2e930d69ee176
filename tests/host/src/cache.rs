//! Things that take long to build, in `KIND-KEY` below [`root`], for all clones of the repository on this machine. The key
//! is a hash of what they are built from. Any of them may be deleted at any time: running hosts keep their files open.
//!
//! `tests/env.sh` has the same rules for kernels.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// How many of a kind stay: work on some branches by turns should not build all over each time.
const KEPT: usize = 4;
/// What was used within this time stays in any case: somebody may be about to restore a host from it.
const IN_USE: Duration = Duration::from_secs(3600);
/// Nothing stays that was not used for this long.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The folder of all that is cached: `host` below `$RUNQ_CACHE`, which is `runq` in the user's folder of caches if unset
/// (XDG Base Directory Specification: `$XDG_CACHE_HOME`, or `~/.cache`).
///
/// # Errors
/// None of the variables is set, nor HOME.
pub fn root() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("RUNQ_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("XDG_CACHE_HOME")?).join("runq")))
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache/runq")))
        .context("no folder for caches: set RUNQ_CACHE, or HOME")?;
    Ok(std::path::absolute(cache)?.join("host"))
}

/// What a thing is built from, as a name for it. Another Rust release may hash differently: a rebuild, no harm.
pub fn key(inputs: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Where `kind` with this key is, whether it exists or not.
///
/// # Errors
/// [`root`]'s.
pub fn path(kind: &str, key: &str) -> Result<PathBuf> {
    Ok(root()?.join(format!("{kind}-{key}")))
}

/// Finds `kind` with this key, and notes that it is used.
///
/// # Errors
/// It is there but cannot be touched.
pub fn find(kind: &str, key: &str) -> Result<Option<PathBuf>> {
    let dir = path(kind, key)?;
    match File::open(&dir).and_then(|file| file.set_modified(SystemTime::now())) {
        Ok(()) => Ok(Some(dir)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("touch {}", dir.display())),
    }
}

/// Finds `kind` with this key, or has `build` make it in a new folder and names that only when it is complete; then
/// removes what of the kind is not worth its room. Only one process of the machine builds at a time.
///
/// # Errors
/// `build`'s; its folder then stays until the next try, to be looked at.
pub fn get(kind: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if let Some(found) = find(kind, key)? {
        return Ok(found);
    }
    let finished = path(kind, key)?;
    let root = root()?;
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let _lock = lock(&root.join("lock"))?;
    if let Some(found) = find(kind, key)? {
        return Ok(found); // another process built it while we waited
    }
    let unfinished = root.join(format!("unfinished-{kind}"));
    remove(&unfinished)?;
    fs::create_dir(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    build(&unfinished)?;
    for file in fs::read_dir(&unfinished)? {
        File::open(file?.path())?.sync_all()?; // a crash must not leave a named folder of empty files
    }
    fs::rename(&unfinished, &finished)
        .with_context(|| format!("rename {}", unfinished.display()))?;
    for old in superfluous(entries(&root, &format!("{kind}-"))?, SystemTime::now())? {
        remove(&old)?;
    }
    Ok(finished)
}

/// Of entries of one kind, those that can go.
fn superfluous(entries: Vec<PathBuf>, now: SystemTime) -> Result<Vec<PathBuf>> {
    let mut unused = Vec::new();
    for entry in entries {
        let used = fs::metadata(&entry)?.modified()?;
        unused.push((now.duration_since(used).unwrap_or_default(), entry));
    }
    unused.sort();
    let goes = |(rank, (unused, entry)): (usize, (Duration, PathBuf))| {
        (unused > UNUSED || (rank >= KEPT && unused > IN_USE)).then_some(entry)
    };
    Ok(unused.into_iter().enumerate().filter_map(goes).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    /// The names of those that go, of folders that were last used so many seconds ago.
    fn goes(unused: &[u64]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for seconds in unused {
            let entry = dir.path().join(format!("state-{seconds}"));
            fs::create_dir(&entry).unwrap();
            let used = now - Duration::from_secs(*seconds);
            File::open(&entry).unwrap().set_modified(used).unwrap();
        }
        let entries = entries(dir.path(), "state-").unwrap();
        let gone = superfluous(entries, now).unwrap();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        gone.iter().map(name).collect()
    }

    #[test]
    fn the_last_used_stay_and_what_may_be_in_use() {
        assert_eq!(goes(&[0, 10 * DAY, 20 * DAY, 29 * DAY]), [""; 0]);
        assert_eq!(
            goes(&[0, DAY, 2 * DAY, 3 * DAY, 4 * DAY]),
            [format!("state-{}", 4 * DAY)]
        );
        assert_eq!(goes(&[0, 1, 2, 3, 4, HOUR / 2]), [""; 0]);
        assert_eq!(goes(&[0, 31 * DAY]), [format!("state-{}", 31 * DAY)]);
    }
}
