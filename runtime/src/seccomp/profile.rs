//! A profile with numbers instead of words.

use anyhow::{Context, Result, bail, ensure};

use crate::spec::{Seccomp, SyscallArg, SyscallRule};

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
    /// Names of architectures.
    pub(super) architectures: Vec<String>,
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

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Its bits of `mask` are `value`.
    Equal { mask: u64, value: u64 },
    /// It is above this.
    Greater(u64),
    /// It is this or above.
    GreaterOrEqual(u64),
}

/// What has to hold for an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Number of the argument, below 6.
    pub(super) index: u32,
    pub(super) test: Test,
    /// How the test has to end.
    pub(super) result: bool,
}

impl Profile {
    /// Checks a profile.
    ///
    /// # Errors
    /// Names what is unknown or too large.
    pub(super) fn new(profile: &Seccomp) -> Result<Self> {
        let default = action(&profile.default_action, profile.default_errno_ret)?;
        // As runc has it: ENOSYS makes no difference to a default that allows or reports.
        let action_only = default & libc::SECCOMP_RET_ACTION_FULL;
        let allows = matches!(
            action_only,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        );
        let rules = profile.syscalls.iter().map(rule);
        Ok(Self {
            default,
            denies: !allows && default != super::NO_SYSTEM_CALL,
            architectures: profile.architectures.clone(),
            rules: rules.collect::<Result<_>>()?,
        })
    }
}

fn rule(rule: &SyscallRule) -> Result<Rule> {
    let name = || {
        format!(
            "rule of {}",
            rule.names.first().map_or("nothing", |name| name)
        )
    };
    let conditions = rule.args.iter().map(condition);
    let conditions: Vec<_> = conditions.collect::<Result<_>>().with_context(name)?;
    let same = |one: &Condition| {
        let others = conditions.iter().filter(|other| other.index == one.index);
        others.count() > 1
    };
    let alternatives = match conditions.iter().any(same) {
        true => conditions.iter().map(|one| vec![*one]).collect(),
        false => vec![conditions],
    };
    Ok(Rule {
        names: rule.names.clone(),
        action: action(&rule.action, rule.errno_ret).with_context(name)?,
        alternatives,
    })
}

fn condition(arg: &SyscallArg) -> Result<Condition> {
    ensure!(
        arg.index < ARGUMENTS,
        "argument {}: a system call has {ARGUMENTS}",
        arg.index
    );
    let value = arg.value;
    let equal = Test::Equal {
        mask: u64::MAX,
        value,
    };
    let masked = Test::Equal {
        mask: value,
        value: arg.value_two,
    };
    let (test, result) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (equal, false),
        "SCMP_CMP_LT" => (Test::GreaterOrEqual(value), false),
        "SCMP_CMP_LE" => (Test::Greater(value), false),
        "SCMP_CMP_EQ" => (equal, true),
        "SCMP_CMP_GE" => (Test::GreaterOrEqual(value), true),
        "SCMP_CMP_GT" => (Test::Greater(value), true),
        "SCMP_CMP_MASKED_EQ" => (masked, true),
        other => bail!("unknown comparison {other:?}"),
    };
    Ok(Condition {
        index: arg.index,
        test,
        result,
    })
}

/// An action as the filter returns it. Without a number, an error is `EPERM`.
fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    let data = || {
        let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
        ensure!(
            errno <= MOST_ERRNO,
            "error number {errno}: {MOST_ERRNO} is the largest"
        );
        Ok(errno)
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | data()?,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | data()?,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_NOTIFY" => {
            bail!("SCMP_ACT_NOTIFY is not supported: there is no listener in a VM")
        }
        other => bail!("unknown action {other:?}"),
    })
}
