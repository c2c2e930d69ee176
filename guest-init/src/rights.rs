//! Who the command is, and what it may do: the last steps before it is executed.
//!
//! Each step depends on the order. The bounding set needs CAP_SETPCAP. Another user than root loses
//! the other sets, unless they are kept. A filter comes last, so that it need not allow what init
//! does, but it needs CAP_SYS_ADMIN, unless programs can gain no rights: the process keeps that until
//! it executes the command, which has no more rights for it, because what execve(2) permits depends
//! on the other sets only (capabilities(7), "Transformation of capabilities during execve()").

use anyhow::{Context, Result};
use libc::sock_filter;
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use proto::{Capabilities, FilterInstruction, Process, User};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

use crate::failure::Failure;
use crate::syscalls;

/// Takes on the rights of the command and its working directory: what can be done afterwards is what
/// is allowed to it.
pub(crate) fn take_on(process: &Process) -> Result<(), Failure> {
    if process.no_new_privileges {
        set_no_new_privs(true).context("give up further privileges")?;
    }
    let capabilities = capabilities_of(process);
    let entered = chdir(process.cwd.as_str());
    if let Some(capabilities) = &capabilities {
        bound(capabilities.bounding)?;
        set_keep_capabilities(true).context("keep capabilities")?;
    }
    set_user(&process.user)?;
    // A directory may be the user's only, on a file system that refuses root, or root's only.
    entered
        .or_else(|_| chdir(process.cwd.as_str()))
        .map_err(|errno| {
            Failure::of_command(&format!("working directory {}", process.cwd), errno)
        })?;
    if let Some(mut capabilities) = capabilities {
        set_keep_capabilities(false).context("keep no capabilities")?;
        if filtering_takes_privilege(process) {
            capabilities.permitted |= CapabilitySet::SYS_ADMIN.bits();
        }
        set_sets(&capabilities).with_context(|| format!("set {capabilities:x?}"))?;
    }
    Ok(())
}

/// The filter of the command, and the privilege to install it. After [`take_on`].
pub(crate) fn prepare_filter(process: &Process) -> Result<Vec<sock_filter>> {
    if filtering_takes_privilege(process) {
        let mut sets = capabilities(None)?;
        sets.effective |= CapabilitySet::SYS_ADMIN;
        set_capabilities(None, sets).context("make CAP_SYS_ADMIN effective")?;
    }
    let instructions = process.seccomp.iter();
    Ok(instructions
        .map(|&FilterInstruction { code, jt, jf, k }| sock_filter { code, jt, jf, k })
        .collect())
}

/// Installs a filter, unless it is empty. It may forbid everything but execve(2).
pub(crate) fn filter(program: &[sock_filter]) -> Result<()> {
    if program.is_empty() {
        return Ok(());
    }
    syscalls::set_seccomp_filter(program).with_context(|| {
        let count = program.len();
        format!("install the seccomp filter of {count} instructions (needs CONFIG_SECCOMP_FILTER)")
    })
}

fn filtering_takes_privilege(process: &Process) -> bool {
    !process.seccomp.is_empty() && !process.no_new_privileges
}

/// The capabilities that the command is given; `None`: those that init has, which is root's.
fn capabilities_of(process: &Process) -> Option<Capabilities> {
    match &process.capabilities {
        Some(capabilities) => Some(known(capabilities)),
        None if process.user.uid == 0 => None,
        // As changing from root to another user leaves them.
        None => Some(Capabilities {
            bounding: u64::MAX,
            ..Capabilities::default()
        }),
    }
}

/// These capabilities without those that the kernel does not know.
fn known(capabilities: &Capabilities) -> Capabilities {
    let known = (0..u64::BITS)
        .take_while(|&number| syscalls::knows_capability(number))
        .fold(0, |known, number| known | 1 << number);
    let Capabilities {
        bounding,
        effective,
        inheritable,
        permitted,
        ambient,
    } = capabilities;
    Capabilities {
        bounding: bounding & known,
        effective: effective & known,
        inheritable: inheritable & known,
        permitted: permitted & known,
        ambient: ambient & known,
    }
}

/// Takes all others from the bounding set.
fn bound(bounding: u64) -> Result<()> {
    for capability in each(!bounding) {
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not know it.
            Err(Errno::INVAL) => {}
            removed => {
                removed.with_context(|| format!("remove {capability:?} from the bounding set"))?
            }
        }
    }
    Ok(())
}

/// The capabilities of a set, each on its own.
fn each(set: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|number| 1 << number)
        .filter(move |bit| set & bit != 0)
        .map(CapabilitySet::from_bits_retain)
}

/// Groups first: only root may change them.
fn set_user(user: &User) -> Result<()> {
    let groups: Vec<_> = user
        .additional_gids
        .iter()
        .copied()
        .map(Gid::from_raw)
        .collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&groups)
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .with_context(|| format!("change to {user:?}"))
}

fn set_sets(capabilities: &Capabilities) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(capabilities.effective),
        permitted: CapabilitySet::from_bits_retain(capabilities.permitted),
        inheritable: CapabilitySet::from_bits_retain(capabilities.inheritable),
    };
    set_capabilities(None, sets)?;
    clear_ambient_capability_set()?;
    for capability in each(capabilities.ambient) {
        configure_capability_in_ambient_set(capability, true)
            .with_context(|| format!("add {capability:?} to the ambient set"))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "rights_test.rs"]
mod tests;
