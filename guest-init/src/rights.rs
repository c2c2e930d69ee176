//! Who the command is, and what it may do: the last steps before it is executed.
//!
//! The order is runc's, and each step depends on it. A filter needs CAP_SYS_ADMIN, unless programs
//! can gain no rights: then it comes last, so that it need not allow what is done here. The bounding
//! set needs CAP_SETPCAP. Another user than root loses the other sets, unless they are kept.

use anyhow::{Context, Result};
use libc::sock_filter;
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use proto::{Capabilities, FilterInstruction, Process, User};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

use crate::failure::Failure;
use crate::syscalls;

/// Takes on the rights of the command and its working directory. Nothing but what is allowed to it
/// can be done afterwards.
pub(crate) fn take_on(process: &Process) -> Result<(), Failure> {
    if process.no_new_privileges {
        set_no_new_privs(true).context("give up further privileges")?;
    } else {
        filter(&process.seccomp)?;
    }
    let capabilities = process.capabilities.as_ref().map(known);
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
    if let Some(capabilities) = &capabilities {
        set_keep_capabilities(false).context("keep no capabilities")?;
        set_sets(capabilities).with_context(|| format!("set {capabilities:x?}"))?;
    }
    Ok(())
}

/// The last step before the command is executed: the filter may forbid everything else.
pub(crate) fn filter_last(process: &Process) -> Result<()> {
    match process.no_new_privileges {
        true => filter(&process.seccomp),
        false => Ok(()),
    }
}

fn filter(instructions: &[FilterInstruction]) -> Result<()> {
    if instructions.is_empty() {
        return Ok(());
    }
    let program: Vec<_> = instructions
        .iter()
        .map(|&FilterInstruction { code, jt, jf, k }| sock_filter { code, jt, jf, k })
        .collect();
    syscalls::set_seccomp_filter(&program).with_context(|| {
        let count = program.len();
        format!("install the seccomp filter of {count} instructions (needs CONFIG_SECCOMP_FILTER)")
    })
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
