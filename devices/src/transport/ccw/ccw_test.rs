//! A driver on a subchannel.

use std::sync::{Arc, Mutex};

use crate::css::Instruction;
use crate::dev::rng;
use crate::device::VirtioDevice;
use crate::event_loop::add_device;
use crate::fabric::{AdapterInterrupt, Doorbell, Interrupt};
use crate::testing::channel::{
    ChannelGuest, DATA, DONE, FIRST, INCORRECT_LENGTH, MEMORY, PROGRAM_CHECK, REJECTED, outcome,
};
use crate::testing::guest::{AGREED, EVENT_IDX, HELLO, RUNNING, VERSION_1};
use crate::testing::probe::{Probe, Told};
use crate::testing::{DriverQueue, FakeFabric};
use crate::transport::ccw::VirtioCcw;
use crate::transport::status;

/// Where the driver has its indicators.
pub(super) const INDICATORS: u64 = 0x5000;
const SUMMARY: u64 = 0x5103;
pub(super) const CONFIG_INDICATORS: u64 = 0x5200;
const FEATURES: u64 = VERSION_1 | EVENT_IDX | 1;

/// A driver of one device.
pub(super) struct Driver {
    pub(super) guest: ChannelGuest,
    pub(super) fabric: Arc<FakeFabric>,
    pub(super) queues: Vec<DriverQueue>,
    told: Arc<Mutex<Vec<Told>>>,
}

/// How it wants to hear of queues.
#[derive(Clone, Copy)]
enum By {
    Adapter,
    Subchannel,
}

impl Driver {
    pub(super) fn new(device: Box<dyn VirtioDevice>, told: Arc<Mutex<Vec<Told>>>) -> Self {
        let mut guest = ChannelGuest::new();
        let fabric = Arc::new(FakeFabric::default());
        let sizes = device.traits().queue_sizes.into_iter();
        let queues = sizes
            .zip([0x1_0000, 0x2_0000])
            .map(|(size, base)| DriverQueue::new(&guest.memory, base, size))
            .collect();
        let handle = add_device(&mut guest.event_loop, device).unwrap();
        let (memory, place) = (Arc::clone(&guest.memory), guest.css.free_place().unwrap());
        let device = VirtioCcw::new(handle, memory, Arc::clone(&fabric) as _, place).unwrap();
        guest.css.add(Box::new(device)).unwrap();
        Self {
            guest,
            fabric,
            queues,
            told,
        }
    }

    pub(super) fn probe(probe: Probe) -> Self {
        let told = Arc::clone(&probe.told);
        Self::new(Box::new(probe), told)
    }

    /// Serves what there is for the device. Returns what it was told.
    pub(super) fn serve(&mut self) -> Vec<Told> {
        self.guest.serve();
        std::mem::take(&mut self.told.lock().unwrap())
    }

    pub(super) fn set_revision(&self, revision: u8) -> (u8, u8) {
        outcome(&self.guest.command(0x83, &[0, revision, 0, 0]))
    }

    pub(super) fn status(&self) -> u8 {
        self.guest.done(0x72, &[0xee])[0]
    }

    fn write_status(&self, status: u8) -> (u8, u8) {
        outcome(&self.guest.command(0x31, &[status]))
    }

    fn offered(&self) -> u64 {
        let half = |index| {
            let descriptor = self.guest.done(0x12, &[0, 0, 0, 0, index]);
            assert_eq!(descriptor[4], index);
            u32::from_le_bytes(descriptor[..4].try_into().unwrap())
        };
        u64::from(half(0)) | u64::from(half(1)) << 32
    }

    /// Offers `features` for agreement. Returns what became of it.
    fn negotiate(&self, features: u64) -> (u8, u8) {
        assert_eq!(self.write_status(HELLO), DONE);
        for index in [0, 1] {
            let half = (features >> (32 * index)) as u32;
            let mut descriptor = half.to_le_bytes().to_vec();
            descriptor.push(index);
            self.guest.done(0x11, &descriptor);
        }
        self.write_status(AGREED)
    }

    pub(super) fn queue_block(&self, index: u16) -> [u8; 32] {
        let queue = &self.queues[usize::from(index)];
        let mut block = [0; 32];
        block[..8].copy_from_slice(&queue.descriptors().to_be_bytes());
        block[12..14].copy_from_slice(&index.to_be_bytes());
        block[14..16].copy_from_slice(&queue.size().to_be_bytes());
        block[16..24].copy_from_slice(&queue.driver_area().to_be_bytes());
        block[24..].copy_from_slice(&queue.device_area().to_be_bytes());
        block
    }

    /// The largest size of a queue.
    fn size(&self, index: u16) -> u16 {
        let [a, b] = index.to_be_bytes();
        let block = self.guest.done(0x32, &[a, b, 0xee, 0xee]);
        u16::from_be_bytes([block[2], block[3]])
    }

    pub(super) fn thin_area(class: u8) -> [u8; 25] {
        let mut area = [0; 25];
        area[..8].copy_from_slice(&SUMMARY.to_be_bytes());
        area[8..16].copy_from_slice(&INDICATORS.to_be_bytes());
        area[16..24].copy_from_slice(&13_u64.to_be_bytes());
        area[24] = class;
        area
    }

    fn set_indicators(&self, by: By) {
        match by {
            By::Adapter => self.guest.done(0x73, &Self::thin_area(3)),
            By::Subchannel => self.guest.done(0x43, &INDICATORS.to_be_bytes()),
        };
        self.guest.done(0x53, &CONFIG_INDICATORS.to_be_bytes());
    }

    /// All that Linux does until a device is in use.
    fn bring_up(&self, by: By) {
        self.guest.done(0x33, &[]);
        assert_eq!(self.status(), 0);
        assert_eq!(self.negotiate(FEATURES & self.offered()), DONE);
        for index in 0..self.queues.len() as u16 {
            let queue = &self.queues[usize::from(index)];
            assert_eq!(self.size(index), queue.size());
            self.guest.done(0x13, &self.queue_block(index));
        }
        self.set_indicators(by);
        assert_eq!(self.write_status(RUNNING), DONE);
    }

    fn running(by: By) -> Self {
        let mut driver = Self::probe(Probe::new());
        driver.find();
        driver.bring_up(by);
        assert_eq!(driver.serve(), [Told::Started { features: FEATURES }]);
        driver
    }

    /// Enables the subchannel and agrees on a revision.
    fn find(&self) {
        self.guest.enable();
        assert_eq!(self.set_revision(2), DONE);
    }

    pub(super) fn kick(&self, queue: u16) {
        let doorbell = Doorbell::Subchannel { id: FIRST, queue };
        if !self.fabric.guest_rings(doorbell) {
            assert!(self.guest.css.notified(FIRST, queue));
        }
    }

    pub(super) fn adapter(queue: u64) -> Interrupt {
        Interrupt::Adapter(AdapterInterrupt {
            class: 3,
            summary: (SUMMARY, 7),
            indicator: (INDICATORS + (13 + queue) / 8, ((13 + queue) % 8) as u8),
        })
    }

    /// What the queues' indicators are, and that of configuration changes; they are cleared.
    fn indicators(&self) -> (u64, u64) {
        [INDICATORS, CONFIG_INDICATORS]
            .map(|at| {
                let indicators = u64::from_be_bytes(self.guest.bytes(at));
                self.guest.write(at, &[0; 8]);
                indicators
            })
            .into()
    }
}

#[test]
fn a_driver_gets_random_numbers() {
    let device = rng::Rng::new(rng::Config::default()).unwrap();
    let mut driver = Driver::new(Box::new(device), Arc::default());
    driver.guest.enable();
    assert_eq!(
        driver.guest.done(0xe4, &[0; 8]),
        [0xff, 0x38, 0x32, 4, 0, 0, 0, 0]
    );
    assert_eq!(driver.set_revision(2), DONE);
    driver.bring_up(By::Adapter);
    driver.serve();
    assert_eq!(driver.fabric.bound(), (1, 1));
    driver.queues[0].receive(64);
    driver.kick(0);
    driver.serve();
    let (head, length) = driver.queues[0].used().unwrap();
    assert_eq!(length, 64);
    assert_ne!(driver.queues[0].contents(head, length), [0; 64]);
    assert_eq!(driver.fabric.raised(), [Driver::adapter(0)]);
    assert_eq!(driver.guest.interrupts(), []);
}

#[test]
fn a_driver_hears_of_each_queue_by_its_own_bit() {
    let mut driver = Driver::running(By::Adapter);
    assert_eq!(driver.fabric.bound(), (2, 2));
    driver.queues[1].receive(1);
    driver.kick(1);
    assert_eq!(driver.serve(), [Told::Kicked(1)]);
    assert_eq!(driver.fabric.raised(), [Driver::adapter(1)]);
    driver.guest.done(0x73, &[0; 25]);
    assert_eq!(
        driver.fabric.bound(),
        (2, 0),
        "it does not want to hear any more"
    );
}

#[test]
fn a_driver_hears_of_queues_by_an_interruption_of_the_subchannel() {
    let mut driver = Driver::running(By::Subchannel);
    assert_eq!(driver.fabric.bound(), (2, 0));
    for (queue, bit) in [(1, 0b10), (0, 0b01)] {
        driver.queues[usize::from(queue)].receive(1);
        driver.kick(queue);
        driver.serve();
        assert_eq!(driver.guest.interrupts(), [ChannelGuest::interrupt()]);
        assert_eq!(driver.indicators(), (bit, 0));
        assert_eq!(driver.guest.status().scsw.control, 0x0011);
    }
    // What is already there when the driver begins to listen.
    driver.guest.done(0x43, &[0; 8]);
    driver.queues[1].set_used_event(1);
    driver.queues[1].receive(1);
    driver.kick(1);
    driver.serve();
    assert_eq!(
        (driver.guest.interrupts(), driver.indicators()),
        (vec![], (0, 0))
    );
    driver.guest.done(0x43, &INDICATORS.to_be_bytes());
    driver.serve();
    assert_eq!(driver.guest.interrupts(), [ChannelGuest::interrupt()]);
    assert_eq!(driver.indicators(), (0b10, 0));
    driver.guest.status();
    // One of the kinds at a time.
    assert_eq!(
        outcome(&driver.guest.command(0x73, &Driver::thin_area(3))),
        REJECTED
    );
}

#[test]
fn a_change_of_the_configuration_is_told_and_read() {
    let probe = Probe::new();
    let config = Arc::clone(&probe.config);
    let mut driver = Driver::probe(probe);
    driver.find();
    config.update(0, &[9]).unwrap();
    driver.serve();
    assert_eq!(driver.guest.interrupts(), []);
    driver.bring_up(By::Adapter);
    driver.serve();
    driver.indicators();
    config.update(1, &[7]).unwrap();
    driver.serve();
    assert_eq!(driver.guest.interrupts(), [ChannelGuest::interrupt()]);
    assert_eq!(driver.indicators(), (0, 1));
    driver.guest.status();
    assert_eq!(driver.guest.done(0x22, &[0; 3]), [9, 7, 3]);
    let irb = driver.guest.command(0x22, &[0; 6]);
    assert_eq!((outcome(&irb), irb.scsw.count), (INCORRECT_LENGTH, 2));
    driver.guest.done(0x21, &[9, 7, 5]);
    assert_eq!(driver.serve(), [Told::ConfigWritten(0, vec![9, 7, 5])]);
    assert_eq!(driver.guest.interrupts(), []);
    // What happened while the driver did not want to hear of it.
    driver.guest.done(0x53, &[0; 8]);
    config.update(1, &[8]).unwrap();
    driver.serve();
    assert_eq!(
        (driver.guest.interrupts(), driver.indicators()),
        (vec![], (0, 0))
    );
    driver.guest.done(0x53, &CONFIG_INDICATORS.to_be_bytes());
    assert_eq!(driver.indicators(), (0, 1));
}

#[test]
fn a_reset_is_complete_when_the_device_has_stopped() {
    for by_status in [false, true] {
        let mut driver = Driver::running(By::Adapter);
        let reset = if by_status {
            driver.guest.write(DATA.into(), &[0]);
            ChannelGuest::ccw(0x31, 1)
        } else {
            ChannelGuest::ccw(0x33, 0)
        };
        assert_eq!(driver.guest.start(&[reset]), 0);
        assert_eq!(driver.fabric.bound(), (0, 0));
        assert_eq!(driver.guest.interrupts(), []);
        assert_eq!(driver.guest.start(&[reset]), 2, "it is under way");
        assert_eq!(driver.serve(), [Told::Stopped]);
        assert_eq!(driver.guest.interrupts(), [ChannelGuest::interrupt()]);
        assert_eq!(outcome(&driver.guest.status()), DONE);
        assert_eq!(driver.status(), 0);
        driver.bring_up(By::Subchannel);
        assert_eq!(driver.serve(), [Told::Started { features: FEATURES }]);
    }
}

#[test]
fn a_reset_that_is_given_up_is_done_all_the_same() {
    let mut driver = Driver::running(By::Adapter);
    assert_eq!(driver.guest.start(&[ChannelGuest::ccw(0x33, 0)]), 0);
    assert_eq!(driver.guest.first(Instruction::ClearSubchannel), 0);
    driver.guest.status();
    // What comes next waits for it.
    assert_eq!(driver.guest.start(&[ChannelGuest::ccw(0x72, 1)]), 0);
    driver.guest.interrupts();
    assert_eq!(driver.serve(), [Told::Stopped]);
    assert_eq!(driver.guest.interrupts(), [ChannelGuest::interrupt()]);
    assert_eq!(outcome(&driver.guest.status()), DONE);
    assert_eq!(driver.guest.bytes(DATA.into()), [0]);
}

#[test]
fn a_revision_is_agreed_on_first_and_once() {
    let driver = Driver::probe(Probe::new());
    driver.guest.enable();
    let rejected = |command: u8, data: &[u8]| outcome(&driver.guest.command(command, data));
    for (command, length) in [(0x33, 0), (0x12, 5), (0x32, 4), (0x72, 1)] {
        assert_eq!(
            rejected(command, &vec![0; length]),
            REJECTED,
            "{command:#x}"
        );
    }
    assert_eq!(driver.set_revision(0), REJECTED, "before virtio 1");
    assert_eq!(driver.set_revision(3), REJECTED);
    assert_eq!(rejected(0x83, &[0, 1, 0, 1, 0]), REJECTED, "with more");
    assert_eq!(rejected(0x83, &[0, 1]), REJECTED, "with less");
    assert_eq!(driver.set_revision(1), DONE);
    assert_eq!(driver.set_revision(1), REJECTED);
    assert_eq!(rejected(0x72, &[0]), REJECTED, "not in revision 1");
    assert_eq!(rejected(0x77, &[0]), REJECTED);
    assert_eq!(driver.guest.set_up(|pmcw| pmcw.flags = 0), 0);
    driver.find();
    assert_eq!(driver.status(), 0);
}

#[test]
fn features_must_be_offered_and_modern() {
    let driver = Driver::probe(Probe::new());
    driver.find();
    assert_eq!(driver.offered(), VERSION_1 | EVENT_IDX | 1 << 28 | 1);
    assert_eq!(driver.guest.done(0x12, &[7, 7, 7, 7, 2]), [0, 0, 0, 0, 2]);
    for refused in [0, 1, VERSION_1 | 2, u64::MAX] {
        assert_eq!(driver.negotiate(refused), REJECTED, "{refused:#x}");
        assert_eq!(driver.write_status(RUNNING), REJECTED);
        assert_eq!(driver.status(), HELLO);
        driver.guest.done(0x33, &[]);
    }
    assert_eq!(driver.negotiate(VERSION_1), DONE);
    assert_eq!(driver.status(), AGREED);
}

#[test]
fn a_queue_is_set_up_as_a_whole_or_not() {
    let driver = Driver::probe(Probe::new());
    driver.find();
    assert_eq!(
        [0, 1, 2, 0xffff].map(|index| driver.size(index)),
        [256, 8, 0, 0]
    );
    let set = |change: fn(&mut [u8; 32])| {
        let mut block = driver.queue_block(1);
        change(&mut block);
        outcome(&driver.guest.command(0x13, &block))
    };
    assert_eq!(set(|block| block[13] = 2), REJECTED, "no such queue");
    assert_eq!(set(|block| block[15] = 16), REJECTED, "too large");
    assert_eq!(set(|block| block[15] = 7), REJECTED, "no power of two");
    assert_eq!(set(|block| block[7] = 8), REJECTED, "not aligned");
    assert_eq!(outcome(&driver.guest.command(0x13, &[0; 31])), REJECTED);
    assert_eq!(set(|block| block[15] = 4), DONE);
    assert_eq!(driver.size(1), 4);
    assert_eq!(set(|_| {}), DONE, "another time");
    assert_eq!(set(|block| block[..8].fill(0)), DONE, "given up");
    driver.negotiate(FEATURES);
    driver.set_indicators(By::Adapter);
    assert_eq!(driver.write_status(RUNNING), DONE);
    assert_eq!(driver.fabric.bound(), (0, 0));
    assert_eq!(set(|_| {}), REJECTED, "too late");
}

#[test]
fn rings_outside_of_memory_make_the_device_need_a_reset() {
    let mut driver = Driver::probe(Probe::new());
    driver.find();
    driver.negotiate(FEATURES);
    let mut block = driver.queue_block(0);
    block[..8].copy_from_slice(&(MEMORY - 4080).to_be_bytes());
    driver.guest.done(0x13, &block);
    driver.set_indicators(By::Adapter);
    assert_eq!(driver.write_status(RUNNING), DONE);
    assert_eq!(driver.status(), RUNNING | status::NEEDS_RESET);
    assert_eq!(driver.indicators(), (0, 1));
    driver.guest.done(0x33, &[]);
    assert_eq!(driver.serve(), []);
}

#[test]
fn indicators_have_to_be_in_memory() {
    let driver = Driver::probe(Probe::new());
    driver.find();
    let rejected = |command: u8, data: &[u8]| outcome(&driver.guest.command(command, data));
    for command in [0x43, 0x53] {
        assert_eq!(rejected(command, &(MEMORY - 7).to_be_bytes()), REJECTED);
        assert_eq!(rejected(command, &[0xff; 8]), REJECTED);
    }
    let area = |at: usize, value: u64| {
        let mut area = Driver::thin_area(3);
        area[at..at + 8].copy_from_slice(&value.to_be_bytes());
        area
    };
    let end = MEMORY - INDICATORS;
    assert_eq!(
        rejected(0x73, &Driver::thin_area(8)),
        REJECTED,
        "no such class"
    );
    assert_eq!(rejected(0x73, &area(0, MEMORY)), REJECTED);
    assert_eq!(rejected(0x73, &area(8, MEMORY)), REJECTED);
    for bit in [u64::MAX, u64::MAX - 1, 8 * end, 8 * end - 1] {
        assert_eq!(rejected(0x73, &area(16, bit)), REJECTED, "{bit:#x}");
    }
    assert_eq!(rejected(0x73, &area(16, 8 * end - 2)), DONE);
    assert_eq!(
        rejected(0x43, &INDICATORS.to_be_bytes()),
        REJECTED,
        "one kind at a time"
    );
}

#[test]
fn a_device_works_when_the_hypervisor_binds_nothing() {
    let mut driver = Driver::probe(Probe::new());
    driver.fabric.refuse(true);
    driver.find();
    let area = Driver::thin_area(3);
    assert_eq!(outcome(&driver.guest.command(0x73, &area)), REJECTED);
    driver.bring_up(By::Subchannel);
    driver.serve();
    driver.queues[0].send(b"x");
    driver.kick(0);
    assert_eq!(driver.serve(), [Told::Kicked(0)]);
    assert_eq!(driver.indicators(), (1, 0));
    assert!(!driver.guest.css.notified(FIRST, 2));
}

#[test]
fn a_device_that_is_removed_stops_and_leaves_nothing_bound() {
    for resetting in [false, true] {
        let mut driver = Driver::running(By::Adapter);
        assert_eq!(driver.fabric.routes(), 2);
        if resetting {
            assert_eq!(driver.guest.start(&[ChannelGuest::ccw(0x33, 0)]), 0);
        }
        driver.guest.css.remove(0);
        assert_eq!((driver.fabric.bound(), driver.fabric.routes()), ((0, 0), 0));
        assert_eq!(driver.serve(), [Told::Stopped]);
        assert_eq!(driver.guest.first(Instruction::StoreSubchannel), 3);
        assert_eq!(driver.guest.machine_checks(), 1);
        assert_eq!(driver.guest.interrupts(), []);
    }
}

#[test]
fn data_outside_of_memory_are_a_program_check() {
    let driver = Driver::running(By::Adapter);
    for (command, count) in [(0x31, 1), (0x22, 4), (0x73, 25), (0x12, 5)] {
        let mut ccw = ChannelGuest::ccw(command, count);
        ccw.address = MEMORY as u32;
        assert_eq!(
            outcome(&driver.guest.run(&[ccw])),
            PROGRAM_CHECK,
            "{command:#x}"
        );
    }
    assert_eq!(driver.status(), RUNNING);
}
