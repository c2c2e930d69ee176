//! What Linux does on QEMU's channel subsystem, done on ours.

use std::collections::VecDeque;
use std::sync::Arc;

use super::tests::{CONFIG_INDICATORS, Driver};
use crate::css::{Instruction, command, pmcw_flags};
use crate::dev::rng;
use crate::testing::channel::{BLOCK, ChannelGuest, DATA, DONE, FIRST, outcome};
use crate::testing::guest::{AGREED, HELLO, RUNNING};

const CALL: u64 = 0x4000;

/// The driver's side of what is recorded, which is no more than which command comes when.
struct Replay {
    driver: Driver,
    /// Whether the subchannel is enabled from one MSCH to the next.
    enabled: VecDeque<bool>,
    /// Commands that all devices have.
    common: VecDeque<(u8, usize)>,
    statuses: VecDeque<u8>,
    /// Features that are offered, and that are accepted, by halves.
    offered: VecDeque<Vec<u8>>,
    /// How many of these there were.
    reads: u8,
    uses: u16,
    queues: usize,
    indicators: usize,
}

impl Replay {
    fn new() -> Self {
        let device = rng::Rng::new(rng::Config::default()).unwrap();
        Self {
            driver: Driver::new(Box::new(device), Arc::default()),
            enabled: [false, true, false, true, false].into(),
            common: [(command::SENSE_ID, 256), (command::NO_OPERATION, 0)].into(),
            statuses: [1, HELLO, AGREED, RUNNING, 1].into(),
            offered: VecDeque::new(),
            reads: 0,
            uses: 0,
            queues: 0,
            indicators: 0,
        }
    }

    fn play(&mut self, event: &str, arguments: &[&str]) {
        match (event, arguments) {
            ("chsc", [code]) => self.call(code),
            ("stsch", [id]) => self.store(id),
            ("msch", _) => {
                let enable = self.enabled.pop_front().unwrap();
                let modified = self.driver.guest.set_up(|pmcw| {
                    let flags = if enable { pmcw_flags::ENABLED } else { 0 };
                    pmcw.flags = flags | 3 << 11;
                    pmcw.characteristics = 1;
                });
                assert_eq!(modified, 0);
            }
            ("ssch", [_]) => {
                let (code, length) = self.common.pop_front().unwrap();
                self.start(code, &vec![0; length], command::SUPPRESS_LENGTH);
            }
            ("ssch", [_, code]) => {
                let code = u8::from_str_radix(code, 16).unwrap();
                let data = self.data(code);
                // As Linux has it.
                let flags = if code == 0x73 {
                    command::SUPPRESS_LENGTH
                } else {
                    0
                };
                self.start(code, &data, flags);
                if code == 0x12 {
                    let features = self.driver.guest.bytes::<5>(DATA.into());
                    self.offered.push_back(features.to_vec());
                }
            }
            ("tsch", _) => assert_eq!(outcome(&self.driver.guest.status()), DONE),
            ("adapter", []) => {
                self.driver.queues[0].set_used_event(self.uses);
                self.uses += 1;
                self.driver.queues[0].receive(16);
                self.driver.kick(0);
                self.driver.serve();
                assert!(self.driver.queues[0].used().is_some());
                assert_eq!(self.driver.fabric.raised(), [Driver::adapter(0)]);
            }
            other => panic!("{other:?}"),
        }
    }

    fn call(&self, code: &str) {
        let guest = &self.driver.guest;
        let code = u16::from_str_radix(code, 16).unwrap();
        let length: u16 = if code == 0x31 { 0x400 } else { 16 };
        guest.write(CALL, &[0; 0x1000]);
        guest.write(CALL, &length.to_be_bytes());
        guest.write(CALL + 2, &code.to_be_bytes());
        let called = guest.execute(Instruction::ChannelSubsystemCall, 0, CALL);
        assert_eq!(called, Ok(0));
        let answer = u16::from_be_bytes(guest.bytes(CALL + u64::from(length) + 2));
        // What Linux cannot do without, and what it can.
        assert_eq!(answer == 1, matches!(code, 0x0002 | 0x0010), "{code:#x}");
        assert_ne!(answer, 0);
    }

    fn store(&self, id: &str) {
        let [set, number] = [2..3, 4..8].map(|part| u32::from_str_radix(&id[part], 16).unwrap());
        let word = FIRST | set << 17 | number;
        let stored = self
            .driver
            .guest
            .execute(Instruction::StoreSubchannel, word, BLOCK);
        let absent = (set, number) != (0, 0);
        assert_eq!(stored, Ok(if absent { 3 } else { 0 }), "{id}");
    }

    fn start(&mut self, code: u8, data: &[u8], flags: u8) {
        self.driver.guest.write(DATA.into(), data);
        let mut ccw = ChannelGuest::ccw(code, data.len());
        ccw.flags = flags;
        assert_eq!(self.driver.guest.start(&[ccw]), 0, "{code:#x}");
        self.driver.serve();
        let interrupts = self.driver.guest.interrupts();
        assert_eq!(interrupts, [ChannelGuest::interrupt()], "{code:#x}");
    }

    fn data(&mut self, code: u8) -> Vec<u8> {
        match code {
            0x83 => vec![0, 2, 0, 0],
            0x33 => vec![],
            0x72 => vec![0],
            0x31 => vec![self.statuses.pop_front().unwrap()],
            0x12 => {
                self.reads += 1;
                vec![0, 0, 0, 0, self.reads - 1]
            }
            0x11 => self.offered.pop_front().unwrap(),
            0x32 => vec![0; 4],
            0x53 => CONFIG_INDICATORS.to_be_bytes().to_vec(),
            0x13 => {
                self.queues += 1;
                let given_up = self.queues > 1;
                let mut block = self.driver.queue_block(0);
                block[..8]
                    .iter_mut()
                    .filter(|_| given_up)
                    .for_each(|byte| *byte = 0);
                block.to_vec()
            }
            0x73 => {
                self.indicators += 1;
                let given_up = self.indicators > 1;
                let mut area = Driver::thin_area(3);
                area[8..24]
                    .iter_mut()
                    .filter(|_| given_up)
                    .for_each(|byte| *byte = 0);
                area.to_vec()
            }
            other => panic!("{other:#x}"),
        }
    }
}

#[test]
fn linux_finds_uses_and_gives_up_a_device() {
    let mut replay = Replay::new();
    let lines = include_str!("linux.trace").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        replay.play(words[0], &words[1..]);
    }
    // All of it was asked for.
    assert_eq!(
        (
            replay.enabled.len(),
            replay.common.len(),
            replay.statuses.len()
        ),
        (0, 0, 0)
    );
    assert_eq!((replay.queues, replay.indicators), (2, 2));
    assert_eq!(replay.driver.fabric.bound(), (0, 0));
}
