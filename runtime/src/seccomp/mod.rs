//! The container's system call filter: from the profile of the OCI runtime specification
//! (config-linux.md, Seccomp) to a program for `seccomp(2)`, which init installs in the guest.
//!
//! The program does what libseccomp's would, as runc uses it:
//! - The first rule of a system call whose conditions hold decides, else the default action. Rules
//!   whose action is the default one, and names that nobody knows, are passed over. Two conditions
//!   on the same argument are two rules. A rule of a call on sockets is one of socketcall(2), too, where there is that.
//! - If the default action denies, a system call whose number is above all that the profile names
//!   fails with `ENOSYS`: programs fall back from what is newer than the profile.
//! - i386's system calls are filtered, too, if the profile lists that architecture. A process that
//!   uses an architecture which is not listed is killed, libseccomp's action for it.
//!
//! It differs for x32, whose system calls fail with `ENOSYS`: no kernel of ours has them. Flags of a
//! profile (logging, speculation) have no effect, and no filter can ask a listener.

mod multiplexed;
mod profile;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use oci_spec::runtime::{Arch, LinuxSeccomp};
use proto::FilterInstruction;
use vmm::seccomp::bpf::{self, Condition, Decision, Ranges};
use vmm::syscalls::{ABIS, Abi};

use profile::Profile;

/// Most instructions that the kernel takes (`BPF_MAXINSNS` of linux/bpf_common.h).
const MOST_INSTRUCTIONS: usize = 4096;

/// A process that uses an architecture for which there are no rules.
const BAD_ARCHITECTURE: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// A system call that the kernel might not know either.
const NO_SYSTEM_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// Compiles a profile.
///
/// # Errors
/// Names what is unknown in the profile, or says that it is too long.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<FilterInstruction>> {
    let profile = Profile::new(profile)?;
    let sections = abis(&profile.architectures).map(|abi| (abi.audit, section(&profile, abi)));
    let program = bpf::program(sections, BAD_ARCHITECTURE);
    ensure!(
        program.len() <= MOST_INSTRUCTIONS,
        "a filter of {} instructions is longer than the {MOST_INSTRUCTIONS} that Linux takes",
        program.len()
    );
    Ok(program.into_iter().map(instruction).collect())
}

/// As it is sent to init.
fn instruction(libc::sock_filter { code, jt, jf, k }: libc::sock_filter) -> FilterInstruction {
    FilterInstruction { code, jt, jf, k }
}

/// The native architecture, and those others of the list that a guest can have.
fn abis(listed: &[Arch]) -> impl Iterator<Item = &'static Abi> {
    let (native, others) = ABIS.split_at(1);
    // The crate's numbers are those of linux/audit.h.
    let is_listed = |abi: &&Abi| listed.iter().any(|arch| *arch as u32 == abi.audit);
    native.iter().chain(others.iter().filter(is_listed))
}

/// What is done with the system calls of one architecture.
fn section(profile: &Profile, abi: &Abi) -> Ranges {
    let mut calls = BTreeMap::new();
    let mut last = None;
    for rule in &profile.rules {
        for name in &rule.names {
            let number = (abi.number)(name);
            last = last.max(number);
            if rule.action == profile.default {
                continue;
            }
            let mut add = |number: u32, alternatives: &[Vec<Condition>]| {
                let decision = calls.entry(number);
                let decision = decision.or_insert_with(|| Decision::new(profile.default));
                decision.add(alternatives, rule.action);
            };
            if let Some(number) = number {
                add(number, &rule.alternatives);
            }
            if let Some((whole, chosen)) = multiplexed::find(name, abi) {
                let alternatives = multiplexed::alternatives(&rule.alternatives, chosen);
                add(whole, &alternatives);
            }
        }
    }
    let mut ranges = Ranges::new(profile.default);
    for (number, decision) in calls {
        ranges.set(number, decision);
    }
    if let Some(last) = last.filter(|_| profile.denies) {
        ranges.cut(last.saturating_add(1), NO_SYSTEM_CALL);
    }
    if let Some(end) = abi.end {
        ranges.cut(end, NO_SYSTEM_CALL);
    }
    ranges
}

#[cfg(test)]
mod load_test;
#[cfg(test)]
mod tests;
