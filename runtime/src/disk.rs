//! A disk, as the path says it that it is to have in the container: /dev/runq/ID/CACHE, and if it is to be
//! mounted, /FSTYPE and the mount point behind that.

use anyhow::{Result, anyhow, bail, ensure};
use proto::DiskMount;
use vmm::disk::Cache;

use crate::split::clean;

/// All that is in here is a disk.
const FOLDER: &str = "/dev/runq";
/// The longest ID in bytes.
const MAX_ID: usize = 36;
/// The file systems that guests have, and that belong on a disk.
const FSTYPES: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "btrfs"];
/// Without what init mounts there, nothing runs.
const TAKEN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The user's name for it.
    pub id: String,
    /// What becomes of writes.
    pub cache: Cache,
    /// What is mounted of it, and where.
    pub mount: Option<DiskMount>,
}

/// Reads a path of the container's; none if it is not that of a disk.
///
/// # Errors
/// One line with the path, the part that is wrong, and what is allowed.
pub fn parse(path: &str) -> Option<Result<Request>> {
    // Docker has done that, but others may not have.
    let cleaned = clean(path);
    let rest = cleaned.strip_prefix(FOLDER)?;
    let is_below = rest.is_empty() || rest.starts_with('/');
    let request = is_below.then(|| parts(rest.trim_start_matches('/')))?;
    Some(request.map_err(|error| anyhow!("{}: {error}", path.escape_debug())))
}

/// Reads what follows the folder: names with one slash between them.
fn parts(path: &str) -> Result<Request> {
    let mut parts = path.splitn(4, '/');
    let id = parts.next().unwrap_or_default();
    check_id(id)?;
    let Some(cache) = parts.next() else {
        let allowed = Cache::ALL.map(Cache::name).join(", ");
        bail!("the cache mode is missing, as in {FOLDER}/{id}/CACHE: {allowed} are allowed");
    };
    let cache = cache.parse().map_err(anyhow::Error::msg)?;
    let fstype = parts.next();
    let mount = fstype.map(|fstype| mount(fstype, parts.next()));
    Ok(Request {
        id: id.to_owned(),
        cache,
        mount: mount.transpose()?,
    })
}

/// Refuses an ID that no disk can have.
pub(crate) fn check_id(id: &str) -> Result<()> {
    ensure!(
        !id.is_empty(),
        "the disk's ID is missing: {FOLDER}/ID/CACHE or {FOLDER}/ID/CACHE/FSTYPE/MOUNTPOINT is a disk's path"
    );
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    ensure!(
        id.len() <= MAX_ID && id.bytes().all(is_allowed),
        "disk ID {id:?}: 1 to {MAX_ID} of a-z, A-Z, 0-9, - and _ are allowed"
    );
    Ok(())
}

fn mount(fstype: &str, target: Option<&str>) -> Result<DiskMount> {
    ensure!(
        FSTYPES.contains(&fstype),
        "file system type {fstype:?}: {} are allowed",
        FSTYPES.join(", ")
    );
    let Some(target) = target else {
        bail!("the mount point is missing behind {fstype}: any absolute path but / is allowed");
    };
    let target = format!("/{target}");
    ensure!(
        !TAKEN.contains(&target.as_str()),
        "mount point {target}: any absolute path but /, {} is allowed",
        TAKEN.join(", ")
    );
    Ok(DiskMount {
        fstype: fstype.to_owned(),
        target,
    })
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
