//! Which thread serves which request.

use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::sync::mpsc::Sender;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::guest_test::{MEMORY, PATIENCE, wait};
use super::requests::Requests;
use super::threads::serve_by;
use super::*;
use crate::testing::{DriverQueue, memory};

/// Whose requests are a byte each, with these meanings.
const QUICK: u8 = 0;
const SLOW: u8 = 1;
const LAST: u8 = 2;

/// Tells the test what it is asked for, and waits for it in slow requests.
struct Told {
    begin: Mutex<Sender<(u8, thread::ThreadId)>>,
    released: Mutex<Receiver<()>>,
}

fn meaning(chain: &Chain) -> u8 {
    let byte = chain.clone().readable().next().unwrap();
    vm_memory::Bytes::read_obj(chain.memory(), byte.addr()).unwrap()
}

impl Protocol for Told {
    fn handle(&self, chain: Chain) -> Result<u32, DeviceError> {
        let asked = (meaning(&chain), thread::current().id());
        self.begin.lock().unwrap().send(asked).unwrap();
        if asked.0 == SLOW {
            self.released.lock().unwrap().recv().unwrap();
        }
        Ok(0)
    }

    fn turn(&self, chain: &Chain) -> Turn {
        match meaning(chain) {
            SLOW => Turn::Slow,
            LAST => Turn::Last,
            _ => Turn::Quick,
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
    let told = Told {
        begin: Mutex::new(begin),
        released: Mutex::new(released),
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
            answers: 0,
        };
        test(&mut team, &|| release.send(()).unwrap());
        team.requests.finish();
    });
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
fn a_slow_request_delays_no_other() {
    with_team(|team, release| {
        let slow = team.send(SLOW);
        let quick: HashSet<_> = (0..5).map(|_| team.send(QUICK)).collect();
        assert!(!quick.contains(&slow));
        assert_eq!(quick.len(), 1, "one thread serves all that are quick");
        assert_eq!(
            (0..5).map(|_| team.answered()).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        release();
        assert_eq!(team.answered(), 0);
    });
}

#[test]
fn quick_requests_need_one_thread() {
    with_team(|team, _| {
        let threads: HashSet<_> = (0..100).map(|_| team.send(QUICK)).collect();
        assert_eq!(threads.len(), 1);
    });
}

#[test]
fn more_slow_requests_than_threads_are_all_served() {
    with_team(|team, release| {
        let threads: HashSet<_> = (0..4).map(|_| team.send(SLOW)).collect();
        assert_eq!(threads.len(), 4);
        for _ in 0..3 {
            team.send_only(SLOW);
        }
        for _ in 0..7 {
            release();
        }
        let mut answered: Vec<_> = (0..7).map(|_| team.answered()).collect();
        answered.sort_unstable();
        assert_eq!(answered, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(team.begun.iter().take(3).count(), 3);
        let again = team.send(QUICK);
        assert!(threads.contains(&again), "no more threads than four");
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

/// The threads are used up by requests that wait, and the leader waits itself.
#[test]
fn many_that_are_to_come_last_are_all_served() {
    with_team(|team, release| {
        team.send(SLOW);
        for _ in 0..6 {
            team.send_only(LAST);
        }
        release();
        let answered: HashSet<_> = (0..7).map(|_| team.answered()).collect();
        assert_eq!(answered.len(), 7);
    });
}
