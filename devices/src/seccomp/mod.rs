//! Which system calls a thread may make, from some moment on.
//!
//! A list stands beside what needs it, each part with its reason. A thread that makes any other
//! call ends the process at once: it is no longer the program that was written. Of some calls a list allows
//! only what any thread may do with them ([`condition`]).

pub mod bpf;
mod install;

use std::collections::BTreeMap;
use std::io;

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, c_long};

use bpf::{Code, Condition, Decision, Ranges, Test};

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

/// fstatfs(2) as the C library makes it: s390x has it twice.
#[cfg(not(target_arch = "s390x"))]
pub const FSTATFS: c_long = libc::SYS_fstatfs;
/// fstatfs(2) as the C library makes it: s390x has it twice.
#[cfg(target_arch = "s390x")]
pub const FSTATFS: c_long = libc::SYS_fstatfs64;

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

/// The native architecture as `AUDIT_ARCH_*` of linux/audit.h: the machine of its ELF files, 64 bits, and its byte order.
const NATIVE: u32 = {
    let machine = if cfg!(target_arch = "s390x") {
        libc::EM_S390
    } else {
        libc::EM_X86_64
    };
    let order = if cfg!(target_endian = "little") {
        0x4000_0000
    } else {
        0
    };
    machine as u32 | 0x8000_0000 | order
};

/// Which argument of clone(2) has its flags: s390x' first is the stack (`CONFIG_CLONE_BACKWARDS2`).
const CLONE_FLAGS: u32 = if cfg!(target_arch = "s390x") { 1 } else { 0 };

/// socketcall(2) of s390x, by which its C library makes all calls on sockets.
const SOCKETCALL: c_long = 102;

/// What a call on sockets is to [`SOCKETCALL`], its first argument (linux/net.h). The C library has functions of their
/// own for send(2) and recv(2), too.
fn numbers_in_socketcall(call: c_long) -> &'static [u64] {
    match call {
        _ if cfg!(not(target_arch = "s390x")) => &[],
        libc::SYS_socket => &[1],
        libc::SYS_bind => &[2],
        libc::SYS_connect => &[3],
        libc::SYS_socketpair => &[8],
        libc::SYS_sendto => &[9, 11],
        libc::SYS_recvfrom => &[10, 12],
        libc::SYS_shutdown => &[13],
        libc::SYS_setsockopt => &[14],
        libc::SYS_getsockopt => &[15],
        libc::SYS_sendmsg => &[16],
        libc::SYS_recvmsg => &[17],
        libc::SYS_accept4 => &[18],
        _ => &[],
    }
}

/// What must hold for an argument of a call that is allowed, in one of these ways.
fn conditions(call: c_long) -> Vec<Condition> {
    match call {
        // On s390x mmap(2) has its arguments in memory, where no filter sees them.
        libc::SYS_mmap if cfg!(target_arch = "s390x") => Vec::new(),
        // No memory becomes a program.
        libc::SYS_mmap | libc::SYS_mprotect => vec![bits(2, libc::PROT_EXEC as u64, 0)],
        libc::SYS_clone => vec![bits(CLONE_FLAGS, ALL_BUT_DETACHED, THREAD)],
        // Root and working directory of a thread; no namespaces.
        libc::SYS_unshare => vec![equal(0, libc::CLONE_FS as u64)],
        // The name of a thread, and what a further filter takes.
        libc::SYS_prctl => {
            let allowed = [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS];
            allowed.map(|option| equal(0, option as u64)).to_vec()
        }
        _ => Vec::new(),
    }
}

/// Compares some bits of the lower half of an argument, which is all that the kernel looks at in those that we compare.
fn bits(index: u32, mask: u64, value: u64) -> Condition {
    let mask = mask & u64::from(u32::MAX);
    let value = value & u64::from(u32::MAX);
    Condition {
        index,
        test: Test::Equal { mask, value },
        result: true,
    }
}

fn equal(index: u32, value: u64) -> Condition {
    bits(index, u64::MAX, value)
}

/// A list of system calls that may be made: some with any arguments, others with those of [`conditions`].
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// For each call, of which all conditions of one have to hold; any arguments will do if there is none.
    rules: BTreeMap<c_long, Vec<Vec<Condition>>>,
}

impl Allowed {
    /// These and no others.
    pub fn calls(calls: impl IntoIterator<Item = c_long>) -> Self {
        let mut allowed = Self::default();
        for call in calls {
            let conditions = conditions(call).into_iter();
            let rule = conditions.map(|one| vec![one]).collect();
            allowed.rules.insert(call, rule);
            for number in numbers_in_socketcall(call) {
                allowed = allowed.or(SOCKETCALL, vec![equal(0, *number)]);
            }
        }
        allowed
    }

    /// KVM's requests to ioctl(2), too, and these.
    pub fn with_kvm(self, requests: &[u64]) -> Self {
        self.or(libc::SYS_ioctl, vec![bits(1, REQUEST_TYPE, KVM_REQUESTS)])
            .with_requests(requests)
    }

    /// These requests to ioctl(2), too.
    pub fn with_requests(self, requests: &[u64]) -> Self {
        requests.iter().fold(self, |allowed, request| {
            allowed.or(libc::SYS_ioctl, vec![equal(1, *request)])
        })
    }

    /// Leaving a parent by prctl(2), too: its death is no signal any more.
    pub fn with_parents_death(self) -> Self {
        let option = equal(0, libc::PR_SET_PDEATHSIG as u64);
        self.or(libc::SYS_prctl, vec![option, equal(1, 0)])
    }

    /// Asking by prctl(2) which capabilities there are, too, as libcap-ng does whenever one is dropped for a moment.
    pub fn with_capability_queries(self) -> Self {
        let ambient = equal(0, libc::PR_CAP_AMBIENT as u64);
        let is_set = equal(1, libc::PR_CAP_AMBIENT_IS_SET as u64);
        let bounding = equal(0, libc::PR_CAPBSET_READ as u64);
        self.or(libc::SYS_prctl, vec![bounding])
            .or(libc::SYS_prctl, vec![ambient, is_set])
    }

    /// One more way to make a call.
    fn or(mut self, call: c_long, conditions: Vec<Condition>) -> Self {
        let ways = self.rules.entry(call).or_default();
        if !ways.contains(&conditions) {
            ways.push(conditions);
        }
        self
    }

    /// Restricts the calling thread, and those that it starts from now on, for good. Sets
    /// `no_new_privs` as well.
    ///
    /// # Errors
    /// When the kernel has no filters.
    pub fn restrict_thread(self) -> io::Result<()> {
        install::restrict_thread(&self.compile())
    }

    fn compile(self) -> Code {
        let mut decisions = BTreeMap::new();
        for (call, mut ways) in self.rules {
            if ways.is_empty() {
                ways.push(Vec::new());
            }
            let mut decision = Decision::new(SECCOMP_RET_KILL_PROCESS);
            decision.add(&ways, SECCOMP_RET_ALLOW);
            decisions.insert(call as u32, decision);
        }
        // Is not there: its arguments are in memory, where no filter sees them. The C library calls clone(2) then.
        let absent = Decision::new(SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        decisions.insert(libc::SYS_clone3 as u32, absent);
        let mut ranges = Ranges::new(SECCOMP_RET_KILL_PROCESS);
        for (call, decision) in decisions {
            ranges.set(call, decision);
        }
        bpf::program([(NATIVE, ranges)], SECCOMP_RET_KILL_PROCESS)
    }
}

#[cfg(test)]
mod decision_test;
#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Set for the copy of this test program that is to break the rules.
    const BREAKER: &str = "RUNQ_TEST_BREAKER";

    /// What a thread of a share could be made to try, all of it by calls that it may make.
    const ATTEMPTS: &[(&str, fn())] = &[
        ("a call that is not in the list", || {
            drop(std::fs::File::open("/"));
        }),
        // Not where no filter sees what mmap(2) is asked for.
        #[cfg(not(target_arch = "s390x"))]
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
        let allowed = any_thread().with_kvm(&[0x5413]);
        assert_eq!(allowed.rules[&libc::SYS_ioctl].len(), 2);
    }

    #[test]
    fn without_requests_ioctl_is_not_allowed_at_all() {
        let allowed = any_thread().with_requests(&[]);
        assert!(!allowed.rules.contains_key(&libc::SYS_ioctl));
        let allowed = allowed.with_requests(&[1, 2]);
        assert_eq!(allowed.rules[&libc::SYS_ioctl].len(), 2);
    }
}
