//! A profile with numbers instead of words.

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use vmm::seccomp::bpf::{Condition, Test};

/// The largest error number that a filter can return (`MAX_ERRNO` of linux/err.h).
const MOST_ERRNO: u32 = 4095;
/// Arguments of a system call.
const ARGUMENTS: u32 = 6;

/// A checked profile.
pub(super) struct Profile {
    /// What is done where no rule decides, as `SECCOMP_RET_*`.
    pub(super) default: u32,
    /// Whether system calls that are not named are denied, other than by `ENOSYS` itself.
    pub(super) denies: bool,
    /// Architectures that have rules.
    pub(super) architectures: Vec<Arch>,
    /// In the profile's order.
    pub(super) rules: Vec<Rule>,
}

/// What is done with some system calls.
pub(super) struct Rule {
    /// Names of the system calls.
    pub(super) names: Vec<String>,
    /// What is done, as `SECCOMP_RET_*`.
    pub(super) action: u32,
    /// It is done if all conditions of one of these hold.
    pub(super) alternatives: Vec<Vec<Condition>>,
}

impl Profile {
    /// Checks a profile.
    ///
    /// # Errors
    /// Names what is unknown or too large.
    pub(super) fn new(profile: &LinuxSeccomp) -> Result<Self> {
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        // As runc has it: ENOSYS makes no difference to a default that allows or reports.
        let action_only = default & libc::SECCOMP_RET_ACTION_FULL;
        let allows = matches!(
            action_only,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        );
        let rules = profile.syscalls().iter().flatten().map(rule);
        Ok(Self {
            default,
            denies: !allows && default != super::NO_SYSTEM_CALL,
            architectures: profile.architectures().clone().unwrap_or_default(),
            rules: rules.collect::<Result<_>>()?,
        })
    }
}

fn rule(rule: &LinuxSyscall) -> Result<Rule> {
    let name = || {
        let first = rule.names().first();
        format!("rule of {}", first.map_or("nothing", |name| name))
    };
    let conditions = rule.args().iter().flatten().map(condition);
    let conditions: Vec<_> = conditions.collect::<Result<_>>().with_context(name)?;
    let same = |one: &Condition| {
        let others = conditions.iter().filter(|other| other.index == one.index);
        others.count() > 1
    };
    let alternatives = if conditions.iter().any(same) {
        conditions.iter().map(|one| vec![*one]).collect()
    } else {
        vec![conditions]
    };
    Ok(Rule {
        names: rule.names().clone(),
        action: action(rule.action(), rule.errno_ret()).with_context(name)?,
        alternatives,
    })
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition> {
    use LinuxSeccompOperator as Op;

    let index = u32::try_from(arg.index()).ok();
    let index = index.filter(|index| *index < ARGUMENTS);
    let index = index
        .with_context(|| format!("argument {}: a system call has {ARGUMENTS}", arg.index()))?;
    let value = arg.value();
    let equal = Test::Equal {
        mask: u64::MAX,
        value,
    };
    let masked = Test::Equal {
        mask: value,
        value: arg.value_two().unwrap_or_default(),
    };
    let (test, result) = match arg.op() {
        Op::ScmpCmpNe => (equal, false),
        Op::ScmpCmpLt => (Test::GreaterOrEqual(value), false),
        Op::ScmpCmpLe => (Test::Greater(value), false),
        Op::ScmpCmpEq => (equal, true),
        Op::ScmpCmpGe => (Test::GreaterOrEqual(value), true),
        Op::ScmpCmpGt => (Test::Greater(value), true),
        Op::ScmpCmpMaskedEq => (masked, true),
    };
    Ok(Condition {
        index,
        test,
        result,
    })
}

/// An action as the filter returns it. Without a number, an error is `EPERM`.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    ensure!(
        action != LinuxSeccompAction::ScmpActNotify,
        "{action} is not supported: there is no listener in a VM"
    );
    if let Some(errno) = errno {
        ensure!(
            errno <= MOST_ERRNO,
            "error number {errno}: {MOST_ERRNO} is the largest"
        );
    }
    Ok(action.as_u32(errno))
}
