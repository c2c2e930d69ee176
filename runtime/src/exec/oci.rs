//! What `runq exec` is told to run, in the agent's terms.

use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use proto::exec::{Exec, ExecUser};
use proto::{Capabilities, Process, User};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use crate::create;
use crate::spec;
use crate::split::process::translate;

/// All capabilities up to `CAP_AUDIT_READ` (linux/capability.h). Later ones, of Linux 5.8 and 5.9, are
/// not known to every Docker.
const ALL: u64 = (1 << 38) - 1;

/// Reads a process of the OCI runtime specification from a file; `container` is the container's own.
///
/// # Errors
/// Names the file, and the field that is wrong.
pub fn read(file: &Path, container: &Process) -> Result<Exec> {
    let name = || format!("--process {}", file.display());
    let process = create::read(file).context("--process")?;
    parse(process, container).with_context(name)
}

fn parse(process: Value, container: &Process) -> Result<Exec> {
    // In a configuration of its own, it is read as the container's.
    let config = json!({"ociVersion": "1.0.0", "process": process});
    let spec = spec::read(&config)?;
    exec(spec::process(&spec)?, container)
}

fn exec(process: &oci::Process, container: &Process) -> Result<Exec> {
    let process = translate(process)?;
    Ok(Exec {
        unfiltered: is_privileged(process.capabilities, container),
        args: process.args,
        env: Some(process.env),
        more_env: Vec::new(),
        cwd: Some(process.cwd),
        user: Some(ExecUser::Known(process.user)),
        capabilities: process.capabilities,
        no_new_privileges: Some(process.no_new_privileges),
        rlimits: Some(process.rlimits),
        umask: process.umask,
        terminal: process.terminal,
    })
}

/// Whether Docker was asked for `--privileged`: that gives all capabilities to a command in a
/// container that has not, and takes the filter away.
fn is_privileged(capabilities: Option<Capabilities>, container: &Process) -> bool {
    let has_all = |sets: Capabilities| sets.bounding & ALL == ALL;
    capabilities.is_some_and(has_all) && !container.capabilities.is_none_or(has_all)
}

/// The container's capabilities, and these by name as well.
///
/// # Errors
/// Names the one that there is not.
pub fn add_capabilities(names: &[String], container: &Process) -> Result<Option<Capabilities>> {
    let Some(mut sets) = container.capabilities.filter(|_| !names.is_empty()) else {
        return Ok(None);
    };
    for name in names {
        let full = name.to_ascii_uppercase();
        let full = full.strip_prefix("CAP_").unwrap_or(&full);
        let bit = CapabilitySet::from_name(full)
            .with_context(|| format!("--cap {name}: there is no such capability"))?;
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            *set |= bit.bits();
        }
    }
    Ok(Some(sets))
}

/// A user as `runq exec` is told: `UID[:GID]`, or names, and further groups by number.
///
/// # Errors
/// Names the option that is wrong.
pub fn user(
    user: Option<&str>,
    groups: &[String],
    container: &Process,
) -> Result<Option<ExecUser>> {
    let group = |text: &String| {
        text.parse()
            .with_context(|| format!("--additional-gids {text}: a number is needed"))
    };
    let groups = groups.iter().map(group).collect::<Result<Vec<u32>>>()?;
    let Some(name) = user else {
        let mut user = container.user.clone();
        user.additional_gids.extend(&groups);
        return Ok((!groups.is_empty()).then_some(ExecUser::Known(user)));
    };
    let (uid, gid) = name.split_once(':').unwrap_or((name, "0"));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(Some(ExecUser::Known(User {
            uid,
            gid,
            additional_gids: groups,
        }))),
        _ if groups.is_empty() => Ok(Some(ExecUser::Named(name.to_owned()))),
        _ => bail!("--user {name}: with --additional-gids, UID:GID is needed"),
    }
}

#[cfg(test)]
#[path = "oci_test.rs"]
mod tests;
