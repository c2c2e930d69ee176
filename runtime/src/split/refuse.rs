//! What a container in a VM cannot have, refused before anything is done.

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, Spec};

use super::ANNOTATION;
use crate::spec;

/// Namespaces that have to be made for the container: what it shares with another one, or with the
/// host, is shared by processes, and those of the container are in the VM.
const OWN: [(LinuxNamespaceType, &str); 3] = [
    (
        LinuxNamespaceType::Pid,
        "--pid host and --pid container:ID are not supported",
    ),
    (
        LinuxNamespaceType::Ipc,
        "--ipc host and --ipc container:ID are not supported",
    ),
    (
        LinuxNamespaceType::Mount,
        "the mount namespace of the host or of another container is not supported",
    ),
];

/// Refuses what cannot be done.
///
/// # Errors
/// One line on the first such thing.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let annotations = spec.annotations().as_ref();
    ensure!(
        annotations.is_none_or(|annotations| !annotations.contains_key(ANNOTATION)),
        "config.json: the annotation {ANNOTATION} is there already, and only runq may set it"
    );
    let linux = spec::linux(spec).context("config.json")?;
    let rules = linux.resources().as_ref();
    let rules = rules.and_then(|resources| resources.devices().as_ref());
    ensure!(
        !rules.into_iter().flatten().any(allows_everything),
        "--privileged is not supported: use --cap-add and --device for what the container needs"
    );
    namespaces(linux)
}

fn namespaces(linux: &Linux) -> Result<()> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (kind, message) in OWN {
        let own = namespaces.iter().find(|one| one.typ() == kind);
        let path = own.map(|namespace| namespace.path().as_ref());
        let is_new = path.is_some_and(|path| path.is_none_or(|path| path == ""));
        ensure!(is_new, "{message}");
    }
    // It may be one that was made before (namespace.rs).
    let network = LinuxNamespaceType::Network;
    ensure!(
        namespaces
            .iter()
            .any(|namespace| namespace.typ() == network),
        "--network host is not supported, as the VM has a network of its own: use --publish for \
         ports, or a macvlan network for an address of the host's network"
    );
    let user = LinuxNamespaceType::User;
    ensure!(
        !namespaces.iter().any(|namespace| namespace.typ() == user),
        "user namespaces are not supported: use --userns host"
    );
    Ok(())
}

/// Any device, as `--privileged` has it.
fn allows_everything(rule: &LinuxDeviceCgroup) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    let all_types = rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A);
    rule.allow() && all_types && any(rule.major()) && any(rule.minor())
}
