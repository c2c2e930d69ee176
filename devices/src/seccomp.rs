//! Which system calls a thread may make, from some moment on.
//!
//! A list stands beside what needs it, each part with its reason. A thread that makes any other
//! call ends the process at once: it is no longer the program that was written.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What any thread of a Rust program makes.
pub const ANY_THREAD: [c_long; 28] = [
    // Memory: the allocator, and stacks of threads that end.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Waiting for each other, and the end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Signals: their return, the alternative stack of each thread, abort(3), the kick of a vCPU.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Time, where the vDSO has none.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    // Events and the log.
    libc::SYS_close,
    libc::SYS_fcntl, // of debug builds, before they close
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Keys of hash maps.
    libc::SYS_getrandom,
    // Names of threads.
    libc::SYS_prctl,
];

/// The type of KVM's requests to ioctl(2): `KVMIO` of linux/kvm.h, in bits 8 to 15.
const KVM_REQUESTS: u64 = 0xae00;
const REQUEST_TYPE: u64 = 0xff00;

/// A list of system calls that may be made with any arguments.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
}

impl Allowed {
    /// These and no others.
    pub fn calls(calls: impl IntoIterator<Item = c_long>) -> Self {
        Self {
            rules: calls.into_iter().map(|call| (call, Vec::new())).collect(),
        }
    }

    /// KVM's requests to ioctl(2), too, and these.
    ///
    /// # Errors
    /// None that could come at run time: the rule is a constant one.
    pub fn with_kvm(mut self, requests: &[u64]) -> io::Result<Self> {
        let kvm = ioctl(SeccompCmpOp::MaskedEq(REQUEST_TYPE), KVM_REQUESTS)?;
        self.rules.entry(libc::SYS_ioctl).or_default().push(kvm);
        self.with_requests(requests)
    }

    /// These requests to ioctl(2), too.
    ///
    /// # Errors
    /// As [`Self::with_kvm`].
    pub fn with_requests(mut self, requests: &[u64]) -> io::Result<Self> {
        for &request in requests {
            let rule = ioctl(SeccompCmpOp::Eq, request)?;
            // Not before there is a rule: a call without one may be made with any arguments.
            self.rules.entry(libc::SYS_ioctl).or_default().push(rule);
        }
        Ok(self)
    }

    /// Restricts the calling thread, and those that it starts from now on, for good. Sets
    /// `no_new_privs` as well.
    ///
    /// # Errors
    /// When the kernel has no filters.
    pub fn restrict_thread(self) -> io::Result<()> {
        seccompiler::apply_filter(&self.compile()?).map_err(io::Error::other)
    }

    fn compile(self) -> io::Result<BpfProgram> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
        let (refuse, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
        SeccompFilter::new(self.rules, refuse, allow, arch)
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)
    }
}

fn ioctl(how: SeccompCmpOp, request: u64) -> io::Result<SeccompRule> {
    SeccompCondition::new(1, SeccompCmpArgLen::Dword, how, request)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the copy of this test program that is to break the rules.
    const BREAKER: &str = "RUNQ_TEST_BREAKER";

    #[test]
    fn other_calls_end_the_process() {
        if std::env::var_os(BREAKER).is_some() {
            Allowed::calls(ANY_THREAD).restrict_thread().unwrap();
            let _ = std::fs::File::open("/");
            return;
        }
        let test = "seccomp::tests::other_calls_end_the_process";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(BREAKER, "")
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
    }

    #[test]
    fn a_restricted_thread_works_and_ends() {
        let thread = std::thread::spawn(|| {
            Allowed::calls(ANY_THREAD).restrict_thread().unwrap();
            (0..1000).map(|n: u64| n.to_string()).collect::<String>()
        });
        assert_eq!(thread.join().unwrap().len(), 2890);
    }

    #[test]
    fn of_ioctl_only_kvms_requests_are_allowed() {
        let allowed = Allowed::calls(ANY_THREAD).with_kvm(&[0x5413]).unwrap();
        assert_eq!(allowed.rules[&libc::SYS_ioctl].len(), 2);
        allowed.compile().unwrap();
    }

    #[test]
    fn without_requests_ioctl_is_not_allowed_at_all() {
        let allowed = Allowed::calls(ANY_THREAD).with_requests(&[]).unwrap();
        assert!(!allowed.rules.contains_key(&libc::SYS_ioctl));
        let allowed = allowed.with_requests(&[1, 2]).unwrap();
        assert_eq!(allowed.rules[&libc::SYS_ioctl].len(), 2);
    }
}
