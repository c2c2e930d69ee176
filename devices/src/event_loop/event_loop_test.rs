use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::thread;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::config_space::ConfigSpace;
use crate::device::Activation;
use crate::queue::VirtQueue;
use crate::testing::probe::{HOST_TOKEN, Probe, Told};
use crate::testing::{DriverQueue, memory};

/// A loop with a probe; the driver's end of its queues.
struct Setup {
    event_loop: EventLoop,
    handle: DeviceHandle,
    drivers: Vec<DriverQueue>,
    told: Arc<Mutex<Vec<Told>>>,
    host: EventFd,
    config: Arc<ConfigSpace>,
}

impl Setup {
    fn new(probe: Probe) -> Self {
        let memory = memory(1 << 20);
        let sizes = probe.queue_sizes.iter().zip([0x1_0000, 0x2_0000]);
        let drivers = sizes.map(|(&size, base)| DriverQueue::new(&memory, base, size));
        let (told, host) = (Arc::clone(&probe.told), probe.host.try_clone().unwrap());
        let (drivers, config) = (drivers.collect(), Arc::clone(&probe.config));
        let mut event_loop = EventLoop::new().unwrap();
        let handle = add_device(&mut event_loop, Box::new(probe)).unwrap();
        Self {
            event_loop,
            handle,
            drivers,
            told,
            host,
            config,
        }
    }

    /// Starts the device. Returns the eventfds of its queues: kick and call.
    fn start(&self) -> Vec<(EventFd, EventFd)> {
        let queues: Vec<_> = self.drivers.iter().map(|d| d.device_end(false)).collect();
        let clone = |q: &VirtQueue| {
            let (kick, call) = (q.kick().try_clone(), q.call().try_clone());
            (kick.unwrap(), call.unwrap())
        };
        let events = queues.iter().map(clone).collect();
        self.handle.start(Activation {
            memory: memory(0x1000),
            features: 1,
            queues,
        });
        events
    }

    /// Serves what there is, and what follows from it. Returns what the device was told.
    fn serve(&mut self) -> Vec<Told> {
        while self.event_loop.turn(0).unwrap() > 0 {}
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

#[test]
fn a_device_is_started_kicked_and_stopped_on_the_loop() {
    let mut setup = Setup::new(Probe::new());
    let events = setup.start();
    assert_eq!(*setup.told.lock().unwrap(), [], "nothing happens elsewhere");
    assert_eq!(setup.serve(), [Told::Started { features: 1 }]);

    let head = setup.drivers[1].send(b"hello");
    events[1].0.write(1).unwrap();
    assert_eq!(setup.serve(), [Told::Kicked(1)]);
    assert_eq!(setup.drivers[1].used(), Some((head.into(), 5)));
    assert!(events[1].1.read().is_ok(), "the driver was signalled");
    assert!(events[0].1.read().is_err());

    setup.host.write(1).unwrap();
    assert_eq!(setup.serve(), [Told::Ready(HOST_TOKEN)]);
    setup.host.write(1).unwrap();
    assert_eq!(setup.serve(), [], "it is unwatched");

    setup.handle.stop();
    assert_eq!(setup.handle.state(), RunState::Stopping);
    assert_eq!(setup.serve(), [Told::Stopped]);
    assert_eq!(setup.handle.state(), RunState::Stopped);
    events[1].0.write(1).unwrap();
    assert_eq!(setup.serve(), [], "no kicks after the stop");

    let events = setup.start();
    events[0].0.write(1).unwrap();
    let told = [
        Told::Started { features: 1 },
        Told::Kicked(0),
        Told::Ready(HOST_TOKEN),
    ];
    let mut again = setup.serve();
    again.sort_by_key(|t| told.iter().position(|u| u == t));
    assert_eq!(again, told);
}

#[test]
fn a_kick_from_before_the_start_is_served() {
    let mut setup = Setup::new(Probe::new());
    let events = setup.start();
    events[0].0.write(1).unwrap();
    assert_eq!(
        setup.serve(),
        [Told::Started { features: 1 }, Told::Kicked(0)]
    );
}

#[test]
fn a_device_that_fails_is_stopped_and_the_driver_hears_of_it() {
    let mut setup = Setup::new(Probe {
        fail_kick: true,
        ..Probe::new()
    });
    let events = setup.start();
    setup.serve();
    assert!(setup.config.call().read().is_err());

    events[0].0.write(1).unwrap();
    events[1].0.write(1).unwrap();
    setup.host.write(1).unwrap();
    let told = setup.serve();
    let failed = told.iter().position(|t| matches!(t, Told::Kicked(_)));
    assert_eq!(told[failed.unwrap() + 1..], [Told::Stopped]);
    assert_eq!(setup.handle.state(), RunState::Broken);
    assert!(setup.config.call().read().is_ok());

    setup.handle.stop();
    assert_eq!(setup.serve(), [], "it was stopped already");
    assert_eq!(setup.handle.state(), RunState::Stopped);
}

#[test]
fn a_device_that_cannot_start_is_broken_and_watches_nothing() {
    let mut setup = Setup::new(Probe {
        fail_start: true,
        ..Probe::new()
    });
    setup.host.write(1).unwrap();
    setup.start();
    assert_eq!(
        setup.serve(),
        [Told::Started { features: 1 }, Told::Stopped]
    );
    assert_eq!(setup.handle.state(), RunState::Broken);
    assert!(setup.config.call().read().is_ok());
}

#[test]
fn a_queue_that_runs_away_breaks_the_device() {
    let mut setup = Setup::new(Probe::new());
    let events = setup.start();
    setup.drivers[1].set_available_index(9);
    events[1].0.write(1).unwrap();
    assert_eq!(
        setup.serve(),
        [
            Told::Started { features: 1 },
            Told::Kicked(1),
            Told::Stopped
        ]
    );
    assert_eq!(setup.handle.state(), RunState::Broken);
}

#[test]
fn configuration_writes_arrive_and_a_flood_of_them_is_bounded() {
    let mut setup = Setup::new(Probe::new());
    setup.start();
    for _ in 0..1000 {
        setup.handle.write_config(2, &[9]);
    }
    let told = setup.serve();
    assert_eq!(told[1], Told::ConfigWritten(2, vec![9]));
    assert_eq!(told.len(), 1 + 64);
    setup.handle.write_config(0, &[1]);
    assert_eq!(setup.serve(), [Told::ConfigWritten(0, vec![1])]);
}

#[test]
fn draining_goes_on_until_the_reader_has_all() {
    let mut setup = Setup::new(Probe {
        backlog: 3,
        ..Probe::new()
    });
    setup.start();
    let host = setup.host.try_clone().unwrap();
    let reader = thread::spawn(move || (0..3).for_each(|_| host.write(1).unwrap()));
    setup.event_loop.drain().unwrap();
    let told = setup.told.lock().unwrap().clone();
    assert_eq!(told.first(), Some(&Told::Started { features: 1 }));
    assert_eq!(told[told.len() - 2..], [Told::Drained, Told::Stopped]);
    let served = told.iter().filter(|t| matches!(t, Told::Ready(_))).count();
    assert_eq!(served, 3);
    assert_eq!(setup.handle.state(), RunState::Stopped);
    reader.join().unwrap();
}

#[test]
fn draining_waits_for_others_and_ends_early_if_it_must() {
    let mut setup = Setup::new(Probe {
        backlog: 3,
        ..Probe::new()
    });
    setup.start();
    // Nobody ever reads what the device holds.
    let stopper = setup.event_loop.stopper();
    let exit = EventFd::new(EFD_NONBLOCK).unwrap();
    exit.write(1).unwrap();
    let subscriber = Exit(exit, stopper);
    setup.event_loop.add_subscriber(subscriber);
    setup.event_loop.drain().unwrap();
    let told = setup.serve();
    assert_eq!(told.last(), Some(&Told::Stopped));

    let (mut waits, exit) = (
        Setup::new(Probe::new()),
        EventFd::new(EFD_NONBLOCK).unwrap(),
    );
    exit.write(1).unwrap();
    let subscriber = Exit(exit, waits.event_loop.stopper());
    waits.event_loop.add_subscriber(subscriber);
    waits.event_loop.add_subscriber(Full);
    waits.event_loop.drain().unwrap();
}

#[test]
fn draining_stops_devices_that_hold_nothing_and_skips_those_not_started() {
    let mut setup = Setup::new(Probe::new());
    setup.event_loop.drain().unwrap();
    assert_eq!(setup.serve(), []);
    setup.start();
    setup.event_loop.drain().unwrap();
    assert_eq!(
        setup.serve(),
        [Told::Started { features: 1 }, Told::Drained, Told::Stopped]
    );
}

#[test]
fn without_a_loop_a_device_is_broken_and_a_reset_completes() {
    let setup = Setup::new(Probe::new());
    drop(setup.event_loop);
    setup.handle.start(Activation {
        memory: memory(0x1000),
        features: 1,
        queues: Vec::new(),
    });
    assert_eq!(setup.handle.state(), RunState::Broken);
    setup.handle.stop();
    assert_eq!(setup.handle.state(), RunState::Stopped);
}

/// Ends the loop when its eventfd is signalled.
struct Exit(EventFd, Stopper);

impl Subscriber for Exit {}

impl MutEventSubscriber for Exit {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.0.read().unwrap();
        self.1.stop();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        ops.add(Events::new(&self.0, EventSet::IN)).unwrap();
    }
}

/// Never has handed on all that it holds.
struct Full;

impl Subscriber for Full {
    fn drained(&mut self, _: &mut EventOps<'_>) -> bool {
        false
    }
}

impl MutEventSubscriber for Full {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {}

    fn init(&mut self, _: &mut EventOps<'_>) {}
}

#[test]
fn a_device_each_on_two_loops_is_served_by_two_threads() {
    let mut setups = [Setup::new(Probe::new()), Setup::new(Probe::new())];
    let heads = setups.each_mut().map(|s| s.drivers[0].send(b"hello"));
    let events = setups.each_ref().map(Setup::start);
    // None of them is alone with its thread until the other has served its driver, too.
    let both = Arc::new(Barrier::new(2));
    let threads = setups.into_iter().zip(events).zip(heads);
    let threads = threads.map(|((mut setup, events), head)| {
        let both = Arc::clone(&both);
        thread::spawn(move || {
            events[0].0.write(1).unwrap();
            setup.serve();
            assert_eq!(setup.drivers[0].used(), Some((head.into(), 5)));
            both.wait();
            setup.event_loop.drain().unwrap();
            assert_eq!(setup.handle.state(), RunState::Stopped);
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

#[test]
fn a_subscriber_and_another_thread_can_end_the_loop() {
    let exit = EventFd::new(EFD_NONBLOCK).unwrap();
    let mut event_loop = EventLoop::new().unwrap();
    let stopper = event_loop.stopper();
    event_loop.add_subscriber(Exit(exit.try_clone().unwrap(), stopper));
    assert!(exit.as_raw_fd() >= 0);
    exit.write(1).unwrap();
    event_loop.run().unwrap();

    let mut event_loop = EventLoop::new().unwrap();
    let stopper = event_loop.stopper();
    // The loop may be run by a thread that did not build it.
    let runner = thread::spawn(move || event_loop.run());
    stopper.stop();
    runner.join().unwrap().unwrap();
}
