//! Which thread serves which request.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::guest_test::{MEMORY, PATIENCE, wait};
use super::requests::Requests;
use super::threads::{MAX_THREADS, serve_by};
use super::*;
use crate::testing::{DriverQueue, memory};

/// Whose requests are a byte each, with these meanings.
const QUICK: u8 = 0;
const SLOW: u8 = 1;
const LAST: u8 = 2;
const BROKEN: u8 = 3;
const LAZY: u8 = 4;
/// Slow, and possibly for ever.
const UNBOUNDED: u8 = 5;

thread_local! {
    /// Tells that a thread has ended.
    static GUARD: RefCell<Option<Guard>> = const { RefCell::new(None) };
}

struct Guard(Sender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Tells the test what it is asked for, and waits for it in slow requests.
struct Told {
    begin: Mutex<Sender<(u8, thread::ThreadId)>>,
    released: Mutex<Receiver<()>>,
    end: Mutex<Sender<()>>,
}

fn meaning(chain: &Chain) -> u8 {
    let byte = chain.clone().readable().next().unwrap();
    vm_memory::Bytes::read_obj(chain.memory(), byte.addr()).unwrap()
}

impl Protocol for Told {
    fn handle(&self, chain: Chain) -> Result<u32, DeviceError> {
        GUARD.set(Some(Guard(self.end.lock().unwrap().clone())));
        let asked = (meaning(&chain), thread::current().id());
        // The test may be at its end.
        let _ = self.begin.lock().unwrap().send(asked);
        match asked.0 {
            SLOW | UNBOUNDED => self.released.lock().unwrap().recv().unwrap(),
            BROKEN => return Err(DeviceError::Driver("broken".to_owned())),
            _ => {}
        }
        Ok(0)
    }

    fn waits_for_earlier(&self, chain: &Chain) -> bool {
        meaning(chain) == LAST
    }

    fn pace(&self, chain: &Chain) -> Pace {
        match meaning(chain) {
            LAZY => Pace::Lazy,
            UNBOUNDED => Pace::Unbounded,
            _ => Pace::Prompt,
        }
    }

    fn forget(&self) {}
}

/// Threads that serve a queue by a function of the test, which waits in slow requests.
struct Team {
    driver: DriverQueue,
    kick: EventFd,
    call: EventFd,
    requests: Arc<Requests>,
    begun: Receiver<(u8, thread::ThreadId)>,
    /// Of threads that have served a request.
    ended: Receiver<()>,
    answers: u16,
}

fn with_team(test: impl FnOnce(&mut Team, &dyn Fn())) {
    let memory = memory(MEMORY);
    let driver = DriverQueue::new(&memory, 0, 512);
    let queue = driver.device_end(true);
    let (kick, call) = (queue.kick().try_clone(), queue.call().try_clone());
    let requests = Arc::new(Requests::new(vec![queue]).unwrap());
    let (begin, begun) = channel();
    let (release, released) = channel();
    let (end, ended) = channel();
    let told = Told {
        begin: Mutex::new(begin),
        released: Mutex::new(released),
        end: Mutex::new(end),
    };
    let failed = EventFd::new(EFD_NONBLOCK).unwrap();
    thread::scope(|scope| {
        let served = Arc::clone(&requests);
        scope.spawn(move || serve_by(&told, &served, &failed, "team"));
        let mut team = Team {
            driver,
            kick: kick.unwrap(),
            call: call.unwrap(),
            requests,
            begun,
            ended,
            answers: 0,
        };
        // The test's failure ends slow requests, and this the threads.
        let release = release;
        test(&mut team, &|| release.send(()).unwrap());
    });
}

impl Drop for Team {
    fn drop(&mut self) {
        self.requests.finish();
    }
}

impl Team {
    /// Sends a request that is begun at once.
    fn send(&mut self, meaning: u8) -> thread::ThreadId {
        self.send_only(meaning);
        let (begun, thread) = self.begun.recv_timeout(patience()).unwrap();
        assert_eq!(begun, meaning);
        thread
    }

    fn send_only(&mut self, meaning: u8) {
        self.driver.send(&[meaning]);
        self.kick.write(1).unwrap();
    }

    fn answered(&mut self) -> u32 {
        loop {
            // Wants to hear of the next answer, then looks whether it has missed it.
            self.driver.set_used_event(self.answers);
            if let Some((head, _)) = self.driver.used() {
                self.answers += 1;
                return head;
            }
            wait(self.call.as_raw_fd());
            let _ = self.call.read();
        }
    }
}

fn patience() -> std::time::Duration {
    std::time::Duration::from_millis(PATIENCE.unsigned_abs().into())
}

#[test]
fn a_request_that_takes_long_delays_no_other() {
    with_team(|team, release| {
        let slow = team.send(SLOW);
        for answer in 1..6 {
            assert_ne!(team.send(QUICK), slow);
            assert_eq!(team.answered(), answer);
        }
        release();
        assert_eq!(team.answered(), 0);
    });
}

#[test]
fn one_request_at_a_time_needs_two_threads_at_most() {
    with_team(|team, _| {
        let mut threads = HashSet::new();
        for _ in 0..200 {
            threads.insert(team.send(QUICK));
            team.answered();
        }
        assert!(threads.len() <= 2, "{} threads", threads.len());
    });
}

/// All at once, by one kick.
#[test]
fn more_requests_than_threads_are_all_served() {
    const MANY: u16 = 2 * MAX_THREADS as u16;
    with_team(|team, release| {
        for _ in 0..MANY {
            team.driver.send(&[SLOW]);
        }
        team.kick.write(1).unwrap();
        let begun = |team: &Team| team.begun.recv_timeout(patience()).unwrap().1;
        let threads: HashSet<_> = (0..MAX_THREADS).map(|_| begun(team)).collect();
        assert_eq!(threads.len(), MAX_THREADS);
        for _ in 0..MANY {
            release();
        }
        let answered: HashSet<_> = (0..MANY).map(|_| team.answered()).collect();
        assert_eq!(answered.len(), usize::from(MANY));
        for _ in MAX_THREADS..MANY.into() {
            assert!(threads.contains(&begun(team)), "no more threads than that");
        }
    });
}

#[test]
fn threads_without_work_end() {
    const SOME: usize = 6;
    with_team(|team, release| {
        let threads: HashSet<_> = (0..SOME).map(|_| team.send(SLOW)).collect();
        assert_eq!(threads.len(), SOME);
        for _ in 0..SOME {
            release();
            team.answered();
        }
        // One more has waited all the time, and tells nothing. Two stay.
        for _ in 0..SOME - 2 {
            team.ended.recv_timeout(patience()).unwrap();
        }
        team.send(QUICK);
        team.answered();
    });
}

#[test]
fn what_is_to_come_last_waits_for_what_came_before_and_delays_no_other() {
    with_team(|team, release| {
        team.send(SLOW);
        team.send(SLOW);
        team.send_only(LAST);
        team.send(QUICK);
        assert_eq!(team.answered(), 3);
        release();
        team.answered();
        assert!(team.begun.try_recv().is_err(), "one is under way still");
        release();
        team.answered();
        assert_eq!(team.answered(), 2);
        // Those that come later are not waited for; there is nothing before this one.
        team.send(LAST);
        assert_eq!(team.answered(), 4);
    });
}

/// They use up the threads.
#[test]
fn many_that_are_to_come_last_are_all_served() {
    const MANY: u32 = 2 * MAX_THREADS as u32;
    with_team(|team, release| {
        team.send(SLOW);
        for _ in 1..MANY {
            team.send_only(LAST);
        }
        release();
        let answered: HashSet<_> = (0..MANY).map(|_| team.answered()).collect();
        assert_eq!(answered.len() as u32, MANY);
    });
}

#[test]
fn a_request_that_fails_is_not_waited_for() {
    with_team(|team, release| {
        team.send(SLOW);
        team.send(BROKEN);
        team.send_only(LAST);
        release();
        assert_eq!(team.answered(), 0);
        // It may be taken or not; the end of the test waits for all threads.
    });
}

/// More than are put aside, and than the driver hears of at once.
#[test]
fn what_the_driver_does_not_wait_for_is_answered_all_the_same() {
    const MANY: u32 = 100;
    with_team(|team, _| {
        for _ in 0..MANY {
            team.driver.send(&[LAZY]);
        }
        team.send_only(QUICK);
        let answered: HashSet<_> = (0..=MANY).map(|_| team.answered()).collect();
        assert_eq!(answered.len() as u32, MANY + 1);
        // Nothing comes after it.
        team.send_only(LAZY);
        team.answered();
    });
}

#[test]
fn what_may_never_be_answered_holds_nothing_up() {
    with_team(|team, release| {
        team.driver.send(&[LAZY]);
        team.send_only(UNBOUNDED);
        assert_eq!(team.answered(), 0);
        team.send_only(LAST);
        release();
        let answered = HashSet::from([team.answered(), team.answered()]);
        assert_eq!(answered, HashSet::from([1, 2]));
    });
}
