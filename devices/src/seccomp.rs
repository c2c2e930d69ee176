//! Which system calls a thread may make, from some moment on.
//!
//! A list stands beside what needs it, each part with its reason. A thread that makes any other
//! call ends the process at once: it is no longer the program that was written. Of some calls a list allows
//! only what any thread may do with them ([`condition`]).

use std::collections::BTreeMap;
use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ERRNO, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
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

/// What clone(2) is asked for by pthread_create(3): nothing but one more thread of this process. musl sets
/// CLONE_DETACHED as well, which means nothing any more.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;
const ALL_BUT_DETACHED: u64 = !(libc::CLONE_DETACHED as u64);

/// What must hold for an argument of a call that is allowed: its number, how it is compared, and the values, of which one
/// will do.
fn condition(call: c_long) -> Option<(u8, SeccompCmpOp, &'static [u64])> {
    use SeccompCmpOp::{Eq, MaskedEq};
    Some(match call {
        // No memory becomes a program.
        libc::SYS_mmap | libc::SYS_mprotect => (2, MaskedEq(libc::PROT_EXEC as u64), &[0]),
        libc::SYS_clone => (0, MaskedEq(ALL_BUT_DETACHED), &[THREAD]),
        // Root and working directory of a thread; no namespaces.
        libc::SYS_unshare => (0, Eq, &[libc::CLONE_FS as u64]),
        // The name of a thread, and what a further filter takes.
        libc::SYS_prctl => {
            const ALLOWED: [u64; 2] = [libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64];
            (0, Eq, &ALLOWED)
        }
        _ => return None,
    })
}

/// A list of system calls that may be made: some with any arguments, others with those of [`condition`].
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
        let kvm = rule(1, SeccompCmpOp::MaskedEq(REQUEST_TYPE), KVM_REQUESTS)?;
        self.rules.entry(libc::SYS_ioctl).or_default().push(kvm);
        self.with_requests(requests)
    }

    /// These requests to ioctl(2), too.
    ///
    /// # Errors
    /// As [`Self::with_kvm`].
    pub fn with_requests(mut self, requests: &[u64]) -> io::Result<Self> {
        for &request in requests {
            let rule = rule(1, SeccompCmpOp::Eq, request)?;
            // Not before there is a rule: a call without one may be made with any arguments.
            self.rules.entry(libc::SYS_ioctl).or_default().push(rule);
        }
        Ok(self)
    }

    /// Leaving a parent by prctl(2), too: its death is no signal any more.
    ///
    /// # Errors
    /// As [`Self::with_kvm`].
    pub fn with_parents_death(mut self) -> io::Result<Self> {
        let option = condition_on(0, SeccompCmpOp::Eq, libc::PR_SET_PDEATHSIG as u64)?;
        let none = condition_on(1, SeccompCmpOp::Eq, 0)?;
        let leave = SeccompRule::new(vec![option, none]).map_err(io::Error::other)?;
        self.rules.entry(libc::SYS_prctl).or_default().push(leave);
        Ok(self)
    }

    /// Asking by prctl(2) which capabilities there are, too, as libcap-ng does whenever one is dropped for a moment.
    ///
    /// # Errors
    /// As [`Self::with_kvm`].
    pub fn with_capability_queries(mut self) -> io::Result<Self> {
        let (bounding, ambient) = (libc::PR_CAPBSET_READ, libc::PR_CAP_AMBIENT);
        let ambient = condition_on(0, SeccompCmpOp::Eq, ambient as u64)?;
        let is_set = condition_on(1, SeccompCmpOp::Eq, libc::PR_CAP_AMBIENT_IS_SET as u64)?;
        let ambient = SeccompRule::new(vec![ambient, is_set]).map_err(io::Error::other)?;
        let rules = self.rules.entry(libc::SYS_prctl).or_default();
        rules.extend([rule(0, SeccompCmpOp::Eq, bounding as u64)?, ambient]);
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

    fn compile(mut self) -> io::Result<BpfProgram> {
        for (call, rules) in &mut self.rules {
            if let Some((argument, how, values)) = condition(*call) {
                for &value in values {
                    rules.push(rule(argument, how.clone(), value)?);
                }
            }
        }
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
        let (refuse, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
        let program: BpfProgram = SeccompFilter::new(self.rules, refuse, allow, arch)
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)?;
        Ok(NO_CLONE3.into_iter().chain(program).collect())
    }
}

/// Before all else: clone3(2) is not there. Its arguments are in memory, where no filter sees them. The C library calls
/// clone(2) then.
const NO_CLONE3: [sock_filter; 3] = [
    // Where `struct seccomp_data` has the number: at 0.
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0),
    instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, libc::SYS_clone3 as u32),
    instruction(BPF_RET | BPF_K, 0, SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
];

/// One that skips `otherwise` instructions if it compares, in vain.
const fn instruction(code: u32, otherwise: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: otherwise,
        k,
    }
}

/// Compares the lower half of an argument, which is all that the kernel looks at in those that we compare.
fn rule(argument: u8, how: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = condition_on(argument, how, value)?;
    SeccompRule::new(vec![condition]).map_err(io::Error::other)
}

fn condition_on(argument: u8, how: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the copy of this test program that is to break the rules.
    const BREAKER: &str = "RUNQ_TEST_BREAKER";

    /// What a thread of a share could be made to try, all of it by calls that it may make.
    const ATTEMPTS: [(&str, fn()); 5] = [
        ("a call that is not in the list", || {
            drop(std::fs::File::open("/"));
        }),
        ("memory that can be executed", || {
            let prot = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            drop(vm_memory::MmapRegion::<()>::build(None, 4096, prot, flags));
        }),
        ("a process", || {
            drop(Command::new("/bin/true").spawn());
        }),
        ("a namespace", || {
            let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        }),
        ("a switch of the process", || {
            let _ = nix::sys::prctl::set_dumpable(true);
        }),
    ];

    fn any_thread() -> Allowed {
        Allowed::calls(ANY_THREAD)
    }

    fn with_threads() -> Allowed {
        let threads = [
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_rseq,
            libc::SYS_sched_getaffinity,
            libc::SYS_set_robust_list,
            libc::SYS_unshare,
            // Of Command, before its clone.
            libc::SYS_pipe2,
            libc::SYS_socketpair,
        ];
        Allowed::calls(ANY_THREAD.into_iter().chain(threads))
    }

    #[test]
    fn whatever_else_is_tried_ends_the_process() {
        let attempt = std::env::var(BREAKER);
        let attempt = attempt
            .ok()
            .and_then(|number| ATTEMPTS.get(number.parse::<usize>().ok()?));
        if let Some((_, attempt)) = attempt {
            with_threads().restrict_thread().unwrap();
            return attempt();
        }
        let test = "seccomp::tests::whatever_else_is_tried_ends_the_process";
        for (number, (name, _)) in ATTEMPTS.iter().enumerate() {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(BREAKER, number.to_string())
                .status()
                .unwrap();
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status}");
        }
    }

    #[test]
    fn a_restricted_thread_starts_others() {
        let thread = std::thread::spawn(|| {
            with_threads().restrict_thread().unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            let named = std::thread::Builder::new().name("other".to_owned());
            named.spawn(|| 5).unwrap().join().unwrap()
        });
        assert_eq!(thread.join().unwrap(), 5);
    }

    #[test]
    fn a_restricted_thread_works_and_ends() {
        let thread = std::thread::spawn(|| {
            any_thread().restrict_thread().unwrap();
            (0..1000).map(|n: u64| n.to_string()).collect::<String>()
        });
        assert_eq!(thread.join().unwrap().len(), 2890);
    }

    #[test]
    fn of_ioctl_only_kvms_requests_are_allowed() {
        let allowed = any_thread().with_kvm(&[0x5413]).unwrap();
        assert_eq!(allowed.rules[&libc::SYS_ioctl].len(), 2);
        allowed.compile().unwrap();
    }

    #[test]
    fn without_requests_ioctl_is_not_allowed_at_all() {
        let allowed = any_thread().with_requests(&[]).unwrap();
        assert!(!allowed.rules.contains_key(&libc::SYS_ioctl));
        let allowed = allowed.with_requests(&[1, 2]).unwrap();
        assert_eq!(allowed.rules[&libc::SYS_ioctl].len(), 2);
    }
}
