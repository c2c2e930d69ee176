//! Locks, with the test as their guest and as the host's other programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::tempdir;
use virtiofsd::fuse::Opcode;

use super::ranges::{Kind, LAST, Range};
use super::shared_test::{ALL, FLOCK, READ, Shared, UNLOCK, WRITE, lock};
use super::waits::MAX_WAITS;
use super::{descriptors, host};
use crate::dev::fs::guest_test::{Guest, ROOT, words};
use crate::device::VirtioDevice;

fn bytes(start: u64, end: u64) -> Range {
    Range { start, end }
}

#[test]
fn the_guest_is_told_to_ask_for_locks() {
    let directory = tempdir().unwrap();
    let mut guest = Guest::new(directory.path(), false, "init");
    // FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS: linux/fuse.h.
    let flags = 1 << 1 | 1 << 10;
    let mut body = words(&[7, 38, 1 << 17, flags]);
    body.resize(64, 0);
    let answer = guest.ask(Opcode::Init, 0, &body).unwrap();
    let granted = u32::from_ne_bytes(*answer[12..].first_chunk().unwrap());
    assert_eq!(granted & flags, flags);
}

#[test]
fn locks_of_fcntl_are_the_hosts() {
    let mut shared = Shared::new("fcntl");
    let handle = shared.open(libc::O_RDWR);
    let other = shared.other();
    shared.set(handle, 1, (10, 19), WRITE).unwrap();
    let conflict = host::set(&other, bytes(19, 30), Some(Kind::Read));
    assert_eq!(conflict, Err(nix::errno::Errno::EAGAIN));
    host::set(&other, bytes(20, 30), Some(Kind::Write)).unwrap();
    assert_eq!(shared.set(handle, 1, (20, 20), READ), Err(libc::EAGAIN));
    shared.set(handle, 1, (12, 13), UNLOCK).unwrap();
    host::set(&other, bytes(12, 13), Some(Kind::Write)).unwrap();
    drop(other);
    shared.set(handle, 1, ALL, WRITE).unwrap();
}

#[test]
fn processes_of_the_guest_exclude_each_other_by_any_handle() {
    let mut shared = Shared::new("owners");
    let (one, two) = (shared.open(libc::O_RDWR), shared.open(libc::O_RDWR));
    shared.set(one, 1, (0, 9), WRITE).unwrap();
    // The same process, by another description.
    shared.set(two, 1, (5, 14), WRITE).unwrap();
    // Another one, by the same description.
    assert_eq!(shared.set(one, 2, (14, 14), READ), Err(libc::EAGAIN));
    assert_eq!(shared.test(one, 2, ALL), ((0, 14), WRITE, 4321));
    assert_eq!(shared.test(one, 1, ALL), (ALL, UNLOCK, 0));
    let other = shared.other();
    host::set(&other, bytes(20, LAST), Some(Kind::Read)).unwrap();
    assert_eq!(shared.test(one, 1, ALL), ((20, LAST), READ, 0));
    shared.flush(two, 2);
    assert_eq!(shared.set(one, 2, (14, 14), READ), Err(libc::EAGAIN));
    shared.flush(two, 1);
    shared.set(one, 2, (14, 14), READ).unwrap();
}

#[test]
fn a_lock_needs_a_handle_that_allows_it() {
    let mut shared = Shared::new("access");
    let reader = shared.open(libc::O_RDONLY);
    let writer = shared.open(libc::O_WRONLY);
    assert_eq!(shared.set(reader, 1, ALL, WRITE), Err(libc::EBADF));
    assert_eq!(shared.set(writer, 1, ALL, READ), Err(libc::EBADF));
    assert_eq!(shared.set(99, 1, ALL, READ), Err(libc::EBADF));
    // The owner's read locks become part of what it can write to.
    shared.set(reader, 1, (0, 9), READ).unwrap();
    shared.set(reader, 1, (20, 29), READ).unwrap();
    let other = shared.other();
    shared.set(writer, 1, (5, 6), WRITE).unwrap();
    let test = |byte| host::test(&other, bytes(byte, byte), Kind::Write).unwrap();
    assert_eq!(test(5), Some((bytes(5, 6), Kind::Write)));
    assert_eq!(test(9), Some((bytes(7, 9), Kind::Read)));
    assert_eq!(test(29), Some((bytes(20, 29), Kind::Read)));
    assert_eq!(test(10), None);
    shared.flush(reader, 1);
    host::set(&other, Range::ALL, Some(Kind::Write)).unwrap();
}

#[test]
fn locks_of_a_description_end_with_it() {
    let mut shared = Shared::new("descriptions");
    let (one, two) = (shared.open(libc::O_RDWR), shared.open(libc::O_RDONLY));
    let other = shared.other();
    // F_OFD_SETLK: the guest's owner is the description, of which no FLUSH tells.
    shared.set(one, 77, ALL, WRITE).unwrap();
    assert!(host::set(&other, Range::ALL, Some(Kind::Read)).is_err());
    shared.flock(two, READ).unwrap();
    shared.flock(one, READ).unwrap();
    assert_eq!(shared.flock(one, WRITE), Err(libc::EAGAIN));
    assert!(other.try_lock().is_err());
    shared.release(one);
    host::set(&other, Range::ALL, Some(Kind::Read)).unwrap();
    assert!(other.try_lock().is_err());
    shared.flock(two, UNLOCK).unwrap();
    other.try_lock().unwrap();
    assert_eq!(shared.flock(two, READ), Err(libc::EAGAIN));
}

#[test]
fn files_of_a_read_only_share_are_locked_for_reading() {
    let shared = Shared::new("writable");
    let mut guest = Guest::new(shared.directory.path(), true, "read-only-locks");
    guest.mount();
    let node = guest.lookup("file").unwrap();
    let handle = guest.open(node);
    let mut ask = |kind, flags| {
        let body = lock(handle, 1, ALL, kind, flags);
        guest.ask(Opcode::Setlk, node, &body).map(drop)
    };
    assert_eq!(ask(WRITE, 0), Err(libc::EBADF));
    ask(READ, 0).unwrap();
    ask(WRITE, FLOCK).unwrap();
    let other = shared.other();
    assert!(host::set(&other, Range::ALL, Some(Kind::Write)).is_err());
    assert!(other.try_lock_shared().is_err());
}

#[test]
fn a_reset_ends_all_locks() {
    let mut shared = Shared::new("reset-locks");
    for _ in 0..2 {
        let handle = shared.open(libc::O_RDWR);
        shared.set(handle, 1, ALL, WRITE).unwrap();
        shared.flock(handle, WRITE).unwrap();
        shared.guest.fs.stop();
        let other = shared.other();
        other.try_lock().unwrap();
        host::set(&other, Range::ALL, Some(Kind::Write)).unwrap();
        drop(other);
        shared.guest.start();
        shared.guest.mount();
        shared.node = shared.guest.lookup("file").unwrap();
    }
}

#[test]
fn who_waits_delays_nobody_and_gets_the_lock() {
    for flags in [0, FLOCK] {
        let mut shared = Shared::new("waits");
        let handle = shared.open(libc::O_RDWR);
        let other = shared.other();
        other.lock().unwrap();
        host::set(&other, bytes(0, 9), Some(Kind::Write)).unwrap();
        let body = lock(handle, 1, (5, 20), WRITE, flags);
        // More than there are threads for slow requests.
        let heads: Vec<u32> = (0..6).map(|slot| shared.begin(slot, &body)).collect();
        assert!(shared.is_alive());
        drop(other);
        let mut answered: Vec<u32> = (0..6).map(|_| shared.guest.answer().0).collect();
        answered.sort_unstable();
        assert_eq!(answered, heads);
        assert!((0..6).all(|slot| shared.error(slot) == 0));
        let other = shared.other();
        assert_eq!(other.try_lock().is_err(), flags == FLOCK);
        let fcntl = host::set(&other, bytes(0, 9), Some(Kind::Write));
        assert_eq!(fcntl.is_err(), flags == 0);
    }
}

#[test]
fn a_wait_is_interrupted_even_before_it_has_begun() {
    let mut shared = Shared::new("interrupts");
    let handle = shared.open(libc::O_RDWR);
    let other = shared.other();
    other.lock().unwrap();
    host::set(&other, Range::ALL, Some(Kind::Write)).unwrap();
    // At once, so that some are about to wait and others already do.
    for slot in 0..40 {
        let body = lock(handle, 1, ALL, WRITE, (slot % 2) as u32);
        let early = slot % 10 == 5;
        if early {
            shared.interrupt(slot);
        }
        let head = shared.begin(slot, &body);
        if !early {
            shared.interrupt(slot);
        }
        assert_eq!(shared.answered(slot, head), libc::EINTR, "{slot}");
    }
    drop(other);
    let body = lock(handle, 1, ALL, WRITE, 0);
    let head = shared.begin(50, &body);
    assert_eq!(shared.answered(50, head), 0);
}

#[test]
fn a_thread_that_sleeps_for_a_lock_is_woken() {
    for flags in [0, FLOCK] {
        let mut shared = Shared::new("asleep");
        let handle = shared.open(libc::O_RDWR);
        let other = shared.other();
        other.lock().unwrap();
        host::set(&other, Range::ALL, Some(Kind::Write)).unwrap();
        let head = shared.begin(0, &lock(handle, 1, ALL, WRITE, flags));
        wait_for_sleepers("fs-asleep", 1);
        shared.interrupt(0);
        assert_eq!(shared.answered(0, head), libc::EINTR);
        // And by the end of the share, which waits for nothing.
        shared.begin(1, &lock(handle, 1, ALL, WRITE, flags));
        wait_for_sleepers("fs-asleep", 1);
        shared.guest.fs.stop();
        assert_eq!(shared.error(1), libc::EINTR);
    }
}

/// Returns when so many threads of that name are in a system call for locks.
fn wait_for_sleepers(name: &str, count: usize) {
    let calls = [libc::SYS_flock, libc::SYS_fcntl].map(|call| format!("{call} "));
    let sleeps = |task: &PathBuf| {
        let read = |file| fs::read_to_string(task.join(file)).unwrap_or_default();
        let call = read("syscall");
        read("comm").trim_end() == name && calls.iter().any(|prefix| call.starts_with(prefix))
    };
    loop {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let tasks = tasks.map(|task| task.unwrap().path());
        if tasks.filter(sleeps).count() >= count {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn no_more_wait_than_there_may_be_threads() {
    let mut shared = Shared::new("many");
    let handle = shared.open(libc::O_RDWR);
    let other = shared.other();
    other.lock().unwrap();
    let body = lock(handle, 1, ALL, WRITE, FLOCK);
    let slots = 0..=MAX_WAITS as u64;
    let heads: BTreeMap<_, _> = slots
        .map(|slot| (shared.begin(slot, &body), slot))
        .collect();
    // They are looked at beside each other: whichever comes last is one too many.
    let (head, _) = shared.guest.answer();
    let refused = heads[&head];
    assert_eq!(shared.error(refused), libc::ENOLCK);
    assert!(shared.is_alive());
    shared.guest.fs.stop();
    let mut others = heads.into_values().filter(|slot| *slot != refused);
    assert!(others.all(|slot| shared.error(slot) == libc::EINTR));
}

#[test]
fn what_a_guest_can_hold_is_bounded() {
    let mut shared = Shared::new("bounds");
    let handle = shared.open(libc::O_RDWR);
    let limits = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let owners = descriptors(limits.unwrap().0) as usize - MAX_WAITS;
    let taken =
        (0..10_000).take_while(|&owner| shared.set(handle, owner, (owner, owner), WRITE).is_ok());
    assert_eq!(taken.count(), owners);
    assert_eq!(shared.set(handle, 20_000, (0, 0), READ), Err(libc::ENOLCK));
    // Owners without locks make room.
    shared.set(handle, 5, ALL, UNLOCK).unwrap();
    shared.set(handle, 20_000, (5, 5), READ).unwrap();
}

#[test]
fn what_is_no_lock_is_refused() {
    let mut shared = Shared::new("nonsense-locks");
    let handle = shared.open(libc::O_RDWR);
    for range in [(1, 0), (0, LAST + 1), (u64::MAX, u64::MAX)] {
        assert_eq!(shared.set(handle, 1, range, READ), Err(libc::EINVAL));
    }
    assert_eq!(shared.set(handle, 1, ALL, 3), Err(libc::EINVAL));
    // A directory has no locks of fcntl(2).
    let answer = shared.guest.ask(Opcode::Opendir, ROOT, &words(&[0, 0]));
    let directory = u64::from_ne_bytes(*answer.unwrap().first_chunk().unwrap());
    let body = lock(directory, 1, ALL, READ, 0);
    let answer = shared.guest.ask(Opcode::Setlk, ROOT, &body);
    assert_eq!(answer, Err(libc::EINVAL));
}

/// What a step does, by which of three owners, the first of which is a program of the host.
#[derive(Clone, Debug)]
enum Step {
    Set(u64, (u64, u64), Option<Kind>),
    Close(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..12_u64, 0..12_u64).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let kind = prop_oneof![Just(None), Just(Some(Kind::Read)), Just(Some(Kind::Write))];
    prop_oneof![
        8 => (0..3_u64, range, kind).prop_map(|(owner, range, kind)| Step::Set(owner, range, kind)),
        1 => (1..3_u64).prop_map(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two processes of the guest, which use two handles in turn, and a program of the host exclude each other as three
    /// processes of one machine do.
    #[test]
    fn locks_are_those_of_one_machine(steps in prop::collection::vec(step(), 1..40)) {
        let mut shared = Shared::new("model");
        let handles = [shared.open(libc::O_RDWR), shared.open(libc::O_RDWR)];
        let other = shared.other();
        let mut model: BTreeMap<(u64, u64), Kind> = BTreeMap::new();
        for (turn, step) in steps.into_iter().enumerate() {
            let handle = handles[turn % 2];
            match step {
                Step::Close(owner) => {
                    shared.flush(handle, owner);
                    model.retain(|(_, holder), _| *holder != owner);
                }
                Step::Set(owner, (start, end), kind) => {
                    let in_the_way = model.iter().any(|(&(byte, holder), &held)| {
                        (start..=end).contains(&byte)
                            && holder != owner
                            && kind.is_some_and(|kind| kind == Kind::Write || held == Kind::Write)
                    });
                    let set = if owner == 0 {
                        host::set(&other, bytes(start, end), kind).is_ok()
                    } else {
                        let number = match kind {
                            Some(Kind::Read) => READ,
                            Some(Kind::Write) => WRITE,
                            None => UNLOCK,
                        };
                        shared.set(handle, owner, (start, end), number).is_ok()
                    };
                    prop_assert_eq!(set, !in_the_way, "{} {}-{} {:?}", owner, start, end, kind);
                    for byte in start..=end {
                        match kind {
                            _ if !set => {}
                            Some(kind) => drop(model.insert((byte, owner), kind)),
                            None => drop(model.remove(&(byte, owner))),
                        }
                    }
                }
            }
        }
    }

    /// Whatever is asked for, it is answered.
    #[test]
    fn any_lock_is_answered(
        requests in prop::collection::vec(
            (0..5_u8, 0..4_u64, any::<u64>(), (any::<u64>(), any::<u64>()), 0..5_u32, 0..4_u32),
            1..20,
        ),
    ) {
        let mut shared = Shared::new("any");
        shared.open(libc::O_RDWR);
        let other = shared.other();
        host::set(&other, bytes(1 << 62, LAST), Some(Kind::Read)).unwrap();
        for (what, handle, owner, range, kind, flags) in requests {
            let body = lock(handle, owner, range, kind, flags);
            let opcode = match what {
                0 => Opcode::Getlk,
                1 => Opcode::Flush,
                2 => Opcode::Release,
                _ => Opcode::Setlk,
            };
            let _ = shared.guest.ask(opcode, shared.node, &body);
        }
        prop_assert!(shared.is_alive());
    }
}
