//! The image's root on the host: read-only when nobody has to write to it, so that a guest that obeys no kernel cannot
//! either. What init makes in it, mount points, is there before then.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use proto::{Mountable, Start};

use super::guest_mounts::{Part, part};

/// Where a mount needs something to be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Absolute path in the image.
    pub path: String,
    /// What of the host is mounted there: a directory, or something that takes a file. Unset: a directory.
    pub source: Option<PathBuf>,
    /// Permissions of a directory that is made for it.
    pub mode: u32,
}

impl MountPoint {
    fn directory(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            source: None,
            mode: 0o755,
        }
    }
}

/// Where init mounts its own.
const OWN: [&str; 2] = ["/proc", "/dev"];
/// Where it mounts the kernel's modules.
const MODULES: &str = "/lib/modules";

/// The mount points that the image needs if it is read-only on the host; none if it is not.
///
/// With a root on a disk all is made there, and the image is only read. Devices beside those in /dev are made in the
/// image.
pub(super) fn mount_points(spec: &Spec, start: &Start) -> Option<Vec<MountPoint>> {
    if start.root_disk.is_some() {
        return Some(Vec::new());
    }
    let makes_devices = start
        .devices
        .iter()
        .any(|device| !is_below(&device.path, "/dev"));
    if !start.root.read_only || makes_devices {
        return None;
    }
    let mounts = spec.mounts().iter().flatten();
    let mut volumes = mounts.filter(|mount| part(mount) == Part::Volume);
    let mut points: Vec<_> = start
        .mounts
        .iter()
        .map(|mount| MountPoint {
            path: mount.target.clone(),
            source: match mount.what {
                Mountable::Bind { .. } => volumes.next().and_then(|mount| mount.source().clone()),
                _ => None,
            },
            mode: mode(&mount.what),
        })
        .collect();
    let disks = start.disks.iter().filter_map(|disk| disk.mount.as_ref());
    let modules = start.modules.iter().map(|_| MODULES);
    let directories = OWN.into_iter().chain(modules);
    let directories = directories.chain(disks.map(|mount| &*mount.target));
    let directories = directories.chain([&*start.process.cwd]);
    points.extend(directories.map(MountPoint::directory));
    // What is in another mount is made there.
    let hidden: Vec<_> = points
        .iter()
        .map(|point| {
            points
                .iter()
                .any(|other| is_below(&point.path, &other.path))
        })
        .collect();
    let mut hidden = hidden.into_iter();
    points.retain(|_| !hidden.next().unwrap_or_default());
    Some(points)
}

/// A tmpfs takes the mode of the directory that it covers. Where there is none, runc leaves it its own.
fn mode(what: &Mountable) -> u32 {
    match what {
        Mountable::FileSystem(fs) if fs.fstype == "tmpfs" => 0o1777,
        _ => 0o755,
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| rest.starts_with('/'))
}
