//! What a list comes to, call by call.

use proptest::prelude::*;

use super::*;
use crate::testing::filter;

const KILL: u32 = SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = SECCOMP_RET_ALLOW;

fn decide(allowed: Allowed, call: c_long, first: [u64; 3]) -> u32 {
    let [a, b, c] = first;
    let arguments = [a, b, c, 0, 0, 0];
    filter::decide(&allowed.compile(), NATIVE, call as u32, arguments)
}

fn any_thread() -> Allowed {
    Allowed::calls(ANY_THREAD.into_iter().chain([libc::SYS_clone]))
}

#[test]
fn only_what_is_in_the_list() {
    let decide = |call, first| decide(any_thread(), call, first);
    assert_eq!(decide(libc::SYS_read, [7, 8, 9]), ALLOW);
    assert_eq!(decide(libc::SYS_openat, [0; 3]), KILL);
    assert_eq!(decide(libc::SYS_ioctl, [0; 3]), KILL);
    let absent = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    assert_eq!(decide(libc::SYS_clone3, [0; 3]), absent);
    // x32 on x86_64.
    assert_eq!(decide(libc::SYS_read | 0x4000_0000, [0; 3]), KILL);
    assert_eq!(decide(-1, [0; 3]), KILL);
    let program = any_thread().compile();
    assert_eq!(
        filter::decide(&program, NATIVE ^ 1, libc::SYS_read as u32, [0; 6]),
        KILL
    );
}

#[test]
fn of_some_calls_only_what_any_thread_does() {
    let decide = |call, first| decide(any_thread(), call, first);
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    assert_eq!(decide(libc::SYS_mprotect, [0, 0, executable]), KILL);
    assert_eq!(decide(libc::SYS_mprotect, [0, 0, 3]), ALLOW);
    // The stack and the flags; s390x has them the other way round.
    let clone = |flags| {
        let mut first = [0x7000_0000; 3];
        first[CLONE_FLAGS as usize] = flags;
        decide(libc::SYS_clone, first)
    };
    assert_eq!((clone(THREAD), clone(0x11)), (ALLOW, KILL));
    assert_eq!(clone(THREAD | libc::CLONE_NEWUSER as u64), KILL);
    let prctl = |option: i32| decide(libc::SYS_prctl, [option as u64, 0, 0]);
    assert_eq!(prctl(libc::PR_SET_NAME), ALLOW);
    assert_eq!(prctl(libc::PR_SET_DUMPABLE), KILL);
    // The kernel looks at the lower half alone.
    let option = libc::PR_SET_NAME as u64 | 1 << 32;
    assert_eq!(decide(libc::SYS_prctl, [option, 0, 0]), ALLOW);
}

#[test]
fn calls_on_sockets_by_socketcall() {
    let decide = |number| {
        let allowed = Allowed::calls([libc::SYS_recvfrom, libc::SYS_accept4]);
        decide(allowed, SOCKETCALL, [number, 0, 0])
    };
    // Elsewhere the number is that of another call.
    let allowed = if cfg!(target_arch = "s390x") {
        ALLOW
    } else {
        KILL
    };
    // recv(2), recvfrom(2), accept4(2); socket(2), sendto(2).
    assert_eq!([10, 12, 18].map(decide), [allowed; 3]);
    assert_eq!([1, 11].map(decide), [KILL; 2]);
}

#[test]
fn what_is_added() {
    let decide = |allowed, call, first| decide(allowed, call, first);
    let kvm = || any_thread().with_kvm(&[0x5413]);
    for (request, decision) in [(0xae80, ALLOW), (0x5413, ALLOW), (0x5414, KILL)] {
        assert_eq!(decide(kvm(), libc::SYS_ioctl, [3, request, 0]), decision);
    }
    let leaving = |signal| {
        let option = libc::PR_SET_PDEATHSIG as u64;
        decide(
            any_thread().with_parents_death(),
            libc::SYS_prctl,
            [option, signal, 0],
        )
    };
    assert_eq!((leaving(0), leaving(9)), (ALLOW, KILL));
}

proptest! {
    #[test]
    fn any_other_call_is_refused(call: u32, architecture: u32) {
        let program = any_thread().compile();
        let listed = ANY_THREAD.iter().any(|listed| *listed as u32 == call);
        let other = !listed && ![libc::SYS_clone, libc::SYS_clone3].contains(&c_long::from(call));
        if other || architecture != NATIVE {
            prop_assert_eq!(filter::decide(&program, architecture, call, [0; 6]), KILL);
        }
    }
}
