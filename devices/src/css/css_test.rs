//! Instructions and channel programs, with a device that notes what it is asked.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::testing::channel::{
    BLOCK, ChannelGuest, DATA, DONE, FIRST, INCORRECT_LENGTH, PARAMETER, PROGRAM, PROGRAM_CHECK,
    REJECTED, chained, outcome,
};

/// Reads 4 bytes, which the test sees.
const TAKE: u8 = 0x01;
/// Stores 8 bytes.
const GIVE: u8 = 0x02;
/// Is put off until the device is signalled.
const WAIT: u8 = 0x05;
const NO_SUCH: u8 = 0x09;

type Taken = Arc<Mutex<Vec<[u8; 4]>>>;

/// What the test shares with its device.
#[derive(Default)]
struct Notes {
    taken: Taken,
    disabled: Arc<Mutex<u32>>,
    removed: Arc<Mutex<bool>>,
}

struct Device {
    taken: Taken,
    disabled: Arc<Mutex<u32>>,
    removed: Arc<Mutex<bool>>,
    waiting: Option<bool>,
}

impl Device {
    fn new(notes: &Notes) -> Self {
        Self {
            taken: Arc::clone(&notes.taken),
            disabled: Arc::clone(&notes.disabled),
            removed: Arc::clone(&notes.removed),
            waiting: None,
        }
    }
}

impl ChannelDevice for Device {
    fn sense_id(&self) -> SenseId {
        SenseId::virtio(4)
    }

    fn command(&mut self, command: u8, data: &Data<'_>) -> Result<Progress, Refusal> {
        match command {
            TAKE => {
                self.taken.lock().unwrap().push(data.get()?);
                Ok(Progress::Done(4))
            }
            GIVE => Ok(Progress::Done(data.put_some(b"abcdefgh")?)),
            WAIT if self.waiting != Some(false) => {
                self.waiting = Some(true);
                Ok(Progress::Later)
            }
            WAIT => {
                self.waiting = None;
                Ok(Progress::Done(0))
            }
            _ => Err(Refusal::Reject),
        }
    }

    fn signalled(&mut self, name: u32) -> Reaction {
        match name {
            0 => Reaction::Attention,
            1 => {
                self.waiting = Some(false);
                Reaction::Ready
            }
            _ => Reaction::None,
        }
    }

    fn notified(&mut self, queue: u16) -> bool {
        queue == 1
    }

    fn disabled(&mut self) {
        *self.disabled.lock().unwrap() += 1;
    }

    fn removed(&mut self) {
        *self.removed.lock().unwrap() = true;
    }
}

fn guest() -> (ChannelGuest, Notes) {
    let notes = Notes::default();
    (ChannelGuest::with(Device::new(&notes)), notes)
}

fn ccw(command: u8, flags: u8, count: u16, address: u32) -> Ccw {
    Ccw {
        command,
        flags,
        count,
        address,
    }
}

#[test]
fn a_guest_finds_devices_up_to_the_last() {
    let guest = ChannelGuest::new();
    let store = |word| guest.execute(Instruction::StoreSubchannel, word, BLOCK);
    assert_eq!(store(FIRST), Ok(3), "there is none");
    for number in 0..3 {
        let notes = Notes::default();
        let place = guest.css.free_place().unwrap();
        assert_eq!(
            (place.number(), place.word()),
            (number, FIRST | u32::from(number))
        );
        assert_eq!(
            guest.css.add(Box::new(Device::new(&notes))).unwrap(),
            number
        );
    }
    guest.css.remove(1);
    let found = [0, 1, 2, 3].map(|number| {
        let code = store(FIRST | number).unwrap();
        let schib = Schib::from_bytes(&guest.bytes(BLOCK));
        (code, schib.pmcw.flags, schib.pmcw.device)
    });
    let absent = (0, 0, 0);
    assert_eq!(found[..3], [(0, 1, 0), absent, (0, 1, 2)]);
    assert_eq!(found[3].0, 3);
    assert_eq!(store(FIRST | 1 << 17), Ok(3), "another set");
    assert_eq!(store(0xfe09_0002), Ok(0), "by the name of the image");
    assert_eq!(store(0xfd09_0002), Ok(3));
}

#[test]
fn a_guest_sets_what_is_its_own() {
    let (guest, notes) = guest();
    let before = guest.schib();
    guest.write(BLOCK, &[0xff; 52]);
    assert_eq!(
        guest.execute(Instruction::ModifySubchannel, FIRST, BLOCK),
        Err(Exception::Operand)
    );
    let all = Pmcw {
        flags: !pmcw_flags::INVALID,
        device: 77,
        installed: 0xff,
        available: 0,
        paths: [9; 8],
        parameter: 5,
        characteristics: 5,
        ..before.pmcw
    };
    assert_eq!(guest.set_up(|pmcw| *pmcw = all), 0);
    let expected = Pmcw {
        flags: pmcw_flags::CHANGEABLE | pmcw_flags::DEVICE_VALID,
        parameter: 5,
        characteristics: 5,
        ..before.pmcw
    };
    assert_eq!(guest.schib().pmcw, expected);
    assert_eq!(*notes.disabled.lock().unwrap(), 0);
    for _ in 0..2 {
        assert_eq!(guest.set_up(|pmcw| pmcw.flags = 0), 0);
        assert_eq!(*notes.disabled.lock().unwrap(), 1);
    }
    assert_eq!(guest.schib().pmcw.flags, pmcw_flags::DEVICE_VALID);
    for instruction in [
        Instruction::TestSubchannel,
        Instruction::HaltSubchannel,
        Instruction::ClearSubchannel,
        Instruction::ResumeSubchannel,
        Instruction::CancelSubchannel,
    ] {
        assert_eq!(guest.first(instruction), 3, "{instruction:?}");
    }
    assert_eq!(guest.start(&[]), 3);
}

#[test]
fn a_program_ends_with_an_interruption_and_a_status() {
    let (guest, _) = guest();
    let id = ccw(command::SENSE_ID, command::SUPPRESS_LENGTH, 256, DATA);
    let irb = guest.run(&[id]);
    assert_eq!(guest.bytes(DATA.into()), SenseId::virtio(4).to_bytes());
    let expected = Scsw {
        flags: orb_control::FORMAT_1,
        control: 0x4007,
        program: PROGRAM + 8,
        device_status: 0x0c,
        subchannel_status: 0,
        count: 248,
    };
    assert_eq!(irb.scsw, expected);
    assert_eq!(irb.extended_status[..8], [0, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        guest.first(Instruction::TestSubchannel),
        1,
        "fetched already"
    );
    assert_eq!(guest.schib().scsw.control, 0);
}

#[test]
fn a_status_has_to_be_fetched_before_anything_else() {
    let (guest, _) = guest();
    let nothing = ccw(command::NO_OPERATION, command::SUPPRESS_LENGTH, 0, 0);
    assert_eq!(guest.start(&[nothing]), 0);
    assert_eq!(guest.start(&[nothing]), 1);
    assert_eq!(guest.set_up(|_| {}), 1);
    for instruction in [
        Instruction::HaltSubchannel,
        Instruction::ResumeSubchannel,
        Instruction::CancelSubchannel,
    ] {
        assert_eq!(guest.first(instruction), 1, "{instruction:?}");
    }
    // A status that cannot be stored is kept.
    let nowhere = guest.execute(Instruction::TestSubchannel, FIRST, 1 << 40);
    assert_eq!(nowhere, Err(Exception::Access(AccessRefused)));
    assert_eq!(outcome(&guest.status()), DONE);
    assert_eq!(guest.first(Instruction::ResumeSubchannel), 2);
    assert_eq!(guest.first(Instruction::CancelSubchannel), 2);
    assert_eq!(guest.first(Instruction::HaltSubchannel), 0);
    assert_eq!(guest.status().scsw.control, 0x2001);
    assert_eq!(guest.first(Instruction::ClearSubchannel), 0);
    assert_eq!(guest.status().scsw.control, 0x1001);
    assert_eq!(guest.interrupts().len(), 3);
}

#[test]
fn commands_and_data_are_chained() {
    let (guest, notes) = guest();
    guest.write(DATA.into(), b"1234xyz56");
    let data = command::CHAIN_DATA;
    let program = [
        chained(ccw(TAKE, 0, 4, DATA)),
        ccw(TAKE, data, 2, DATA + 7),
        // The code does not matter, and a transfer may come between.
        ccw(command::TRANSFER_IN_CHANNEL, 0, 0, PROGRAM + 32),
        ccw(0, 0, 0, 0),
        chained(ccw(0, 0, 2, DATA)),
        ccw(GIVE, data | command::SKIP, 3, DATA),
        ccw(GIVE, data, 2, DATA + 64),
        ccw(GIVE, 0, 3, DATA + 80),
    ];
    let irb = guest.run(&program);
    assert_eq!((outcome(&irb), irb.scsw.count), (DONE, 0));
    assert_eq!(irb.scsw.program, PROGRAM + 64);
    assert_eq!(*notes.taken.lock().unwrap(), [*b"1234", *b"5612"]);
    assert_eq!(guest.bytes(DATA.into()), *b"1234");
    assert_eq!(guest.bytes(DATA as u64 + 64), *b"de\0");
    assert_eq!(guest.bytes(DATA as u64 + 80), *b"fgh\0");
}

#[test]
fn a_wrong_length_ends_a_program_unless_it_is_suppressed() {
    let (guest, notes) = guest();
    let take = chained(ccw(TAKE, 0, 6, DATA));
    let irb = guest.run(&[take, take]);
    assert_eq!((outcome(&irb), irb.scsw.count), (INCORRECT_LENGTH, 2));
    assert_eq!(irb.scsw.control, 0x4017);
    assert_eq!(irb.scsw.program, PROGRAM + 8);
    let suppressed = ccw(TAKE, take.flags | command::SUPPRESS_LENGTH, 6, DATA);
    let irb = guest.run(&[suppressed, take]);
    assert_eq!(
        (outcome(&irb), irb.scsw.program),
        (INCORRECT_LENGTH, PROGRAM + 16)
    );
    // Not if the data end before the chain does.
    let chain = command::CHAIN_DATA | command::SUPPRESS_LENGTH;
    let irb = guest.run(&[ccw(TAKE, chain, 5, DATA), ccw(TAKE, chain & !0x80, 7, DATA)]);
    assert_eq!((outcome(&irb), irb.scsw.count), (INCORRECT_LENGTH, 1));
    assert_eq!(notes.taken.lock().unwrap().len(), 4);
}

#[test]
fn a_program_can_interrupt_on_its_way() {
    let (guest, _) = guest();
    let irb = guest.run(&[ccw(GIVE, command::INTERRUPT, 8, DATA)]);
    assert_eq!(outcome(&irb), (0x0c, 0x80));
    assert_eq!(irb.scsw.control, 0x400f);
}

#[test]
fn a_program_of_format_0() {
    let (guest, _) = guest();
    guest.write(
        PROGRAM.into(),
        &[0xf8, 0, 0x20, 0x20, 0xff, 0xff, 0xff, 0xff],
    );
    guest.write(0x2020, &[GIVE, 0, 0x30, 0, 0, 0xff, 0, 8]);
    let orb = Orb {
        paths: 0x80,
        program: PROGRAM,
        ..Orb::default()
    };
    assert_eq!(guest.start_orb(&orb), 0);
    assert_eq!(outcome(&guest.status()), DONE);
    assert_eq!(guest.bytes(DATA.into()), *b"abcdefgh");
    guest.write(0x2020 + 6, &[0, 0]);
    assert_eq!(guest.start_orb(&orb), 0);
    assert_eq!(outcome(&guest.status()), PROGRAM_CHECK, "no data");
}

#[test]
fn a_rejected_command_tells_why() {
    let (guest, _) = guest();
    let reject = |guest: &ChannelGuest| {
        let irb = guest.run(&[chained(ccw(NO_SUCH, 0, 3, DATA)), ccw(TAKE, 0, 4, DATA)]);
        assert_eq!((outcome(&irb), irb.scsw.count), (REJECTED, 3));
        assert_eq!(irb.scsw.control, 0x4017);
        irb
    };
    let irb = reject(&guest);
    assert_eq!(irb.scsw.flags & 0x0402, 0x0402);
    assert_eq!(irb.extended_status[4..8], [1, 0x20, 0, 0]);
    assert_eq!(irb.extended_control[..2], [0x80, 0]);
    // Or when it is asked.
    guest.set_up(|pmcw| pmcw.characteristics = 0);
    let irb = reject(&guest);
    assert_eq!((irb.scsw.flags & 0x0402, irb.extended_control[0]), (0, 0));
    assert_eq!(guest.done(command::SENSE, &[9; 32])[..2], [0x80, 0]);
    assert_eq!(guest.done(command::SENSE, &[9; 32])[..2], [0, 0]);
}

#[test]
fn programs_that_are_wrong() {
    let (guest, _) = guest();
    let tic = |to| ccw(command::TRANSFER_IN_CHANNEL, 0, 0, to);
    let give = ccw(GIVE, 0, 8, DATA);
    let beyond = 0x0010_0000;
    for (what, program) in [
        ("no command", vec![ccw(0xf0, 0, 8, DATA)]),
        ("data outside of memory", vec![ccw(GIVE, 0, 8, beyond - 7)]),
        ("address of 32 bits", vec![ccw(GIVE, 0, 8, 1 << 31)]),
        ("chain into nowhere", vec![chained(give), tic(beyond)]),
        ("not aligned", vec![chained(give), tic(PROGRAM + 4)]),
        (
            "two transfers",
            vec![chained(give), tic(PROGRAM + 16), tic(PROGRAM)],
        ),
        (
            "transfer with flags",
            vec![chained(give), chained(tic(PROGRAM))],
        ),
        ("circle of commands", vec![chained(give), tic(PROGRAM)]),
        (
            "circle of data",
            vec![ccw(TAKE, command::CHAIN_DATA, 1, DATA), tic(PROGRAM)],
        ),
        (
            "no data in a chain",
            vec![ccw(TAKE, command::CHAIN_DATA, 0, DATA), give],
        ),
        ("indirect", vec![ccw(GIVE, command::INDIRECT, 8, DATA)]),
        ("suspended", vec![ccw(GIVE, command::SUSPEND, 8, DATA)]),
    ] {
        assert_eq!(outcome(&guest.run(&program)), PROGRAM_CHECK, "{what}");
    }
}

#[test]
fn operands_are_checked() {
    let (guest, _) = guest();
    for (code, instruction) in [
        (0xb232, Instruction::ModifySubchannel),
        (0xb233, Instruction::StartSubchannel),
        (0xb234, Instruction::StoreSubchannel),
        (0xb235, Instruction::TestSubchannel),
        (0xb239, Instruction::StoreChannelReportWord),
        (0xb25f, Instruction::ChannelSubsystemCall),
    ] {
        assert_eq!(Instruction::from_opcode(code), Some(instruction));
        let at = |address| guest.execute(instruction, FIRST, address);
        assert_eq!(at(BLOCK + 2), Err(Exception::Specification));
        assert_eq!(at(1 << 40), Err(Exception::Access(AccessRefused)));
        assert_eq!(Exception::Access(AccessRefused).code(), None);
    }
    for code in [0xb230, 0xb231, 0xb238, 0xb276] {
        let instruction = Instruction::from_opcode(code).unwrap();
        assert_eq!(guest.execute(instruction, 7, 1), Err(Exception::Operand));
    }
    assert_eq!(Instruction::from_opcode(0xb236), None);
    assert_eq!(Exception::Operand.code(), Some(0x15));
}

#[test]
fn a_call_is_answered_behind_itself() {
    let (guest, _) = guest();
    let call = |request: &[u8]| {
        guest.write(0x4000, request);
        let code = guest.execute(Instruction::ChannelSubsystemCall, 0, 0x4000);
        code.map(|code| (code, guest.bytes::<12>(0x4010)))
    };
    let (code, answer) = call(b"\0\x10\0\x02\x10\0\0\0\0\0\0\0").unwrap();
    assert_eq!(code, 0);
    assert_eq!(answer, *b"\0\x28\0\x01\0\0\0\x01\x80\0\x32\0");
    assert_eq!(call(b"\0\x08\0\x02"), Err(Exception::Operand));
}

#[test]
fn devices_that_come_and_go_are_reported() {
    let guest = ChannelGuest::new();
    let add = |guest: &ChannelGuest| {
        let notes = Notes::default();
        guest.css.add(Box::new(Device::new(&notes))).unwrap();
        notes
    };
    add(&guest);
    assert_eq!(guest.machine_checks(), 0, "nobody has asked");
    let next = |guest: &ChannelGuest| {
        let code = guest.execute(Instruction::StoreChannelReportWord, 0, BLOCK);
        (code.unwrap(), u32::from_be_bytes(guest.bytes(BLOCK)))
    };
    assert_eq!(next(&guest), (1, 0));
    let notes = add(&guest);
    guest.css.remove(1);
    guest.css.remove(1);
    guest.css.remove(0);
    assert!(*notes.removed.lock().unwrap());
    assert_eq!(guest.machine_checks(), 1);
    let nowhere = guest.execute(Instruction::StoreChannelReportWord, 0, 1 << 40);
    assert_eq!(nowhere, Err(Exception::Access(AccessRefused)));
    assert_eq!(next(&guest), (0, 0x0304_0001));
    assert_eq!(next(&guest), (0, 0x0304_0000));
    add(&guest);
    assert_eq!(guest.machine_checks(), 0, "it has not seen the end");
    assert_eq!(next(&guest), (0, 0x0304_0000));
    assert_eq!(next(&guest), (1, 0));
    guest.css.remove(0);
    assert_eq!(guest.machine_checks(), 1);
}

#[test]
fn there_are_256_subchannels() {
    let guest = ChannelGuest::new();
    for _ in 0..256 {
        guest
            .css
            .add(Box::new(Device::new(&Notes::default())))
            .unwrap();
    }
    assert!(guest.css.free_place().is_err());
    assert!(
        guest
            .css
            .add(Box::new(Device::new(&Notes::default())))
            .is_err()
    );
    let last = guest.execute(Instruction::StoreSubchannel, FIRST | 0xff, BLOCK);
    assert_eq!(last, Ok(0));
    assert_eq!(
        guest.execute(Instruction::StoreSubchannel, FIRST | 0x100, BLOCK),
        Ok(3)
    );
}

#[test]
fn a_device_gets_the_guests_attention() {
    let mut guest = ChannelGuest::new();
    let place = guest.css.free_place().unwrap();
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    guest
        .css
        .add(Box::new(Device::new(&Notes::default())))
        .unwrap();
    event.write(1).unwrap();
    place.listen(&event, 0).unwrap();
    guest.serve();
    assert_eq!(guest.interrupts(), [], "not enabled");
    guest.enable();
    for _ in 0..2 {
        event.write(1).unwrap();
        guest.serve();
    }
    assert_eq!(guest.interrupts(), [ChannelGuest::interrupt()]);
    assert_eq!(guest.status().scsw.control, 0x0011);
    place.ignore(&event);
    event.write(1).unwrap();
    guest.serve();
    assert_eq!(guest.interrupts(), []);
}

#[test]
fn a_command_that_is_put_off_goes_on_later() {
    let mut guest = ChannelGuest::new();
    let place = guest.css.free_place().unwrap();
    let [attention, ready] = [0, 1].map(|name| {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        place.listen(&event, name).unwrap();
        event
    });
    let notes = Notes::default();
    guest.css.add(Box::new(Device::new(&notes))).unwrap();
    guest.enable();
    let program = [chained(ccw(WAIT, 0, 0, 0)), ccw(TAKE, 0, 4, DATA)];
    assert_eq!(guest.start(&program), 0);
    assert_eq!(guest.schib().scsw.control, 0x40c0);
    assert_eq!(guest.start(&program), 2);
    assert_eq!(guest.set_up(|_| {}), 2);
    assert_eq!(guest.first(Instruction::TestSubchannel), 1);
    attention.write(1).unwrap();
    guest.serve();
    assert_eq!(guest.interrupts(), []);
    ready.write(1).unwrap();
    guest.serve();
    assert_eq!(guest.interrupts(), [ChannelGuest::interrupt()]);
    assert_eq!(outcome(&guest.status()), DONE);
    assert_eq!(notes.taken.lock().unwrap().len(), 1);

    // One that is given up does not.
    assert_eq!(guest.start(&program), 0);
    assert_eq!(guest.first(Instruction::ClearSubchannel), 0);
    assert_eq!(guest.status().scsw.control, 0x1001);
    ready.write(1).unwrap();
    guest.serve();
    assert_eq!(guest.interrupts().len(), 1);
    assert_eq!(notes.taken.lock().unwrap().len(), 1);
}

#[test]
fn requests_without_a_path_or_a_queue() {
    let (guest, _) = guest();
    let orb = Orb {
        parameter: PARAMETER,
        paths: 0x7f,
        ..Orb::default()
    };
    assert_eq!(guest.start_orb(&orb), 0);
    let scsw = guest.status().scsw;
    assert_eq!((scsw.flags & 0x0300, scsw.control), (0x0300, 0x4011));
    assert!(guest.css.notified(FIRST, 1));
    for (word, queue) in [(FIRST, 0), (FIRST + 1, 1), (0, 1)] {
        assert!(!guest.css.notified(word, queue));
    }
}
