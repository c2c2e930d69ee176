//! What a container in a VM cannot have, refused before anything is done.

use anyhow::{Result, bail, ensure};

use super::{ANNOTATION, clean};
use crate::spec::{DeviceRule, Spec};

/// Namespaces that have to be the container's own: what it shares with another one, or with the
/// host, is shared by processes, and those of the container are in the VM.
const OWN: [(&str, &str); 4] = [
    (
        "network",
        "--network host and --network container:ID are not supported",
    ),
    ("pid", "--pid host and --pid container:ID are not supported"),
    ("ipc", "--ipc host and --ipc container:ID are not supported"),
    (
        "mount",
        "the mount namespace of the host or of another container is not supported",
    ),
];

/// Where disks for the VM are asked for.
const DISKS: &str = "/dev/runq/";

/// Refuses what cannot be done.
///
/// # Errors
/// One line on the first such thing.
pub(super) fn check(spec: &Spec) -> Result<()> {
    ensure!(
        !spec.annotations.contains_key(ANNOTATION),
        "config.json: the annotation {ANNOTATION} is there already, and only runq may set it"
    );
    let mut rules = spec.linux.resources.devices.iter();
    ensure!(
        !rules.any(allows_everything),
        "--privileged is not supported: use --cap-add and --device for what the container needs"
    );
    namespaces(spec)?;
    let mounts = spec.mounts.iter().map(|mount| &mount.destination);
    let devices = spec.linux.devices.iter().map(|device| &device.path);
    for path in mounts.chain(devices) {
        if clean(path).starts_with(DISKS) {
            bail!("{path}: disks are not supported yet");
        }
    }
    Ok(())
}

fn namespaces(spec: &Spec) -> Result<()> {
    let namespaces = &spec.linux.namespaces;
    for (kind, message) in OWN {
        let mut own = namespaces.iter().filter(|one| one.kind == kind);
        ensure!(
            own.next()
                .is_some_and(|namespace| namespace.path.is_empty()),
            "{message}"
        );
    }
    ensure!(
        !namespaces.iter().any(|namespace| namespace.kind == "user"),
        "user namespaces are not supported: use --userns host"
    );
    Ok(())
}

/// Any device, as `--privileged` has it.
fn allows_everything(rule: &DeviceRule) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    rule.allow && matches!(rule.kind.as_str(), "" | "a") && any(rule.major) && any(rule.minor)
}
