//! System calls that i386 and s390x have a second time, as one call with a number for its first argument: a rule of theirs
//! is one of that, too. s390x's C library makes all calls on sockets so.

use vmm::seccomp::bpf::{Condition, Test};
use vmm::syscalls::Abi;

/// Names, and their numbers.
type Parts = &'static [(&'static str, u64)];

/// The call, the bits of its first argument that Linux looks at, and what is which number there (linux/net.h, linux/ipc.h).
#[rustfmt::skip] // as a table
const CALLS: [(&str, u64, Parts); 2] = [
    ("socketcall", 0xffff_ffff, &[
        ("socket", 1), ("bind", 2), ("connect", 3), ("listen", 4), ("accept", 5), ("getsockname", 6), ("getpeername", 7),
        ("socketpair", 8), ("send", 9), ("recv", 10), ("sendto", 11), ("recvfrom", 12), ("shutdown", 13),
        ("setsockopt", 14), ("getsockopt", 15), ("sendmsg", 16), ("recvmsg", 17), ("accept4", 18), ("recvmmsg", 19),
        ("sendmmsg", 20),
    ]),
    ("ipc", 0xffff, &[
        ("semop", 1), ("semget", 2), ("semctl", 3), ("semtimedop", 4), ("msgsnd", 11), ("msgrcv", 12), ("msgget", 13),
        ("msgctl", 14), ("shmat", 21), ("shmdt", 22), ("shmget", 23), ("shmctl", 24),
    ]),
];

/// The number of the call that has this one in it, and what chooses this one there.
pub(super) fn find(name: &str, abi: &Abi) -> Option<(u32, Condition)> {
    CALLS.iter().find_map(|(whole, mask, parts)| {
        let (_, value) = parts.iter().find(|(part, _)| *part == name)?;
        let test = Test::Equal {
            mask: *mask,
            value: *value,
        };
        let chosen = Condition {
            index: 0,
            test,
            result: true,
        };
        Some(((abi.number)(whole)?, chosen))
    })
}

/// What libseccomp makes for the whole call of a rule for a part of it: `chosen` takes the place of what is said of the first
/// argument. The others are not arguments of the whole call, but it compares them all the same.
pub(super) fn alternatives(of_part: &[Vec<Condition>], chosen: Condition) -> Vec<Vec<Condition>> {
    let with_chosen = |conditions: &Vec<Condition>| {
        let others = conditions.iter().filter(|condition| condition.index != 0);
        std::iter::once(chosen).chain(others.copied()).collect()
    };
    of_part.iter().map(with_chosen).collect()
}
