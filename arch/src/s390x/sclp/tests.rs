//! Blocks as Linux makes them, and any others.

use proptest::prelude::*;

use super::*;
use crate::test_memory;

const MACHINE: Machine = Machine {
    cpus: 2,
    memory: 256 << 20,
};
const ADDRESS: u64 = 0x4000;

/// A block of this length, and the rest behind its header.
fn block(length: usize, begin: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..2].copy_from_slice(&(length as u16).to_be_bytes());
    bytes[2..2 + begin.len()].copy_from_slice(begin);
    bytes[HEADER..HEADER + rest.len()].copy_from_slice(rest);
    bytes
}

/// What becomes of a block, and what is written to the console.
fn call(command: u32, block: &[u8], machine: &Machine, events: &mut Events) -> (Vec<u8>, Vec<u8>) {
    let memory = test_memory(1 << 20);
    memory.write_slice(block, GuestAddress(ADDRESS)).unwrap();
    let mut sccb = Sccb::read(&memory, ADDRESS).unwrap();
    let text = sccb.answer(command, machine, events);
    sccb.write(&memory).unwrap();
    let mut answer = vec![0; block.len()];
    memory
        .read_slice(&mut answer, GuestAddress(ADDRESS))
        .unwrap();
    (answer, text)
}

fn code(block: &[u8]) -> u16 {
    half_word(block, RESPONSE_CODE).unwrap()
}

#[test]
fn the_machine_tells_its_memory_and_cpus() {
    let ask = block(4096, &[0x80, 0, 0, 0x80], &[]);
    let (answer, _) = call(0x0012_0001, &ask, &MACHINE, &mut Events::default());
    assert_eq!(code(&answer), 0x10);
    // 256 increments of 1 MiB.
    assert_eq!(answer[8..11], [1, 0, 1]);
    assert_eq!(answer[16..20], [0, 2, 0, 128]);
    assert_eq!(answer[48..56], [8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer[120..122], [0, 1]);
    assert_eq!((answer[128], answer[144]), (0, 1));
}

#[test]
fn much_memory_is_told_in_larger_increments() {
    let large = Machine {
        memory: 1 << 40,
        ..MACHINE
    };
    let ask = block(4096, &[0x80], &[]);
    let (answer, _) = call(0x0002_0001, &ask, &large, &mut Events::default());
    // 512 of 2 GiB: the size takes the longer field.
    assert_eq!(answer[8..11], [2, 0, 0]);
    assert_eq!(answer[100..104], [0, 0, 8, 0]);
}

#[test]
fn cpus_that_have_no_room_are_not_told() {
    let many = Machine {
        cpus: 300,
        ..MACHINE
    };
    let mut events = Events::default();
    for machine in [MACHINE, many] {
        let ask = block(40, &[], &[]);
        assert_eq!(
            code(&call(0x0001_0001, &ask, &machine, &mut events).0),
            0x300
        );
    }
    let ask = block(4096, &[], &[]);
    let (answer, _) = call(0x0001_0001, &ask, &MACHINE, &mut events);
    assert_eq!(code(&answer), 0x10);
    assert_eq!(answer[8..16], [0, 2, 0, 24, 0, 0, 0, 56]);
    assert_eq!((answer[24], answer[40]), (0, 1));
}

#[test]
fn masks_of_four_and_of_eight_bytes() {
    for (length, console, sent) in [(4, true, 0x40), (8, true, 0x40), (8, false, 0)] {
        let mut events = Events::default();
        events.console = console;
        events.input.push_back(b'x');
        let mut masks = vec![0, 0, 0, length];
        masks.resize(4 + 4 * usize::from(length), 0);
        // VT220 is the 26th.
        masks[4 + 3] = 0x40;
        let ask = block(4096, &[], &masks);
        let (answer, _) = call(0x0078_0005, &ask, &MACHINE, &mut events);
        assert_eq!(code(&answer), 0x20);
        let mask = |number| &answer[12 + number * usize::from(length)..][..4];
        assert_eq!(mask(2), [0, 0, 0, sent]);
        assert_eq!(mask(3), [0, 0, 0, sent | 8]);
        assert!(events.pending());
    }
}

#[test]
fn the_console_writes_and_reads() {
    let mut events = Events::default();
    events.quiesce = true;
    let text = b"\0\x08\x1a\0\0\0hi\0\x07\x1a\0\0\0!";
    let (answer, written) = call(0x0076_0005, &block(23, &[], text), &MACHINE, &mut events);
    assert_eq!((code(&answer), &written[..]), (0x20, &b"hi!"[..]));
    assert_eq!((answer[HEADER + 3], answer[HEADER + 11]), (0x80, 0x80));

    let all = block(4096, &[], b"\0\0\0\x04\xff\xff\xff\xff");
    call(0x0078_0005, &all, &MACHINE, &mut events);
    events.input.extend(b"ls\n");
    let ask = block(4096, &[0, 0, 0, 0x80], &[]);
    let (answer, _) = call(0x0077_0005, &ask, &MACHINE, &mut events);
    assert_eq!((code(&answer), &answer[..2]), (0x20, &[0, 8 + 9 + 10][..]));
    assert_eq!(answer[8..17], *b"\0\x09\x1d\0\0\0\0\0\0");
    assert_eq!(answer[17..27], *b"\0\x0a\x1a\0\0\0\0ls\n");
    assert!(!events.pending());
    let (answer, _) = call(0x0077_0005, &ask, &MACHINE, &mut events);
    assert_eq!(code(&answer), 0x60f0);
}

#[test]
fn what_cannot_be_is_answered_so() {
    let mut events = Events::default();
    let mut of = |command, block: &[u8]| code(&call(command, block, &MACHINE, &mut events).0);
    assert_eq!(of(0x00ff_0001, &block(8, &[], &[])), 0x01f0);
    assert_eq!(of(0x0076_0005, &block(9, &[], &[])), 0x72f0);
    assert_eq!(of(0x0076_0005, &block(14, &[], b"\0\x07\x1a")), 0x73f0);
    assert_eq!(of(0x0076_0005, &block(14, &[], b"\0\x06\x02")), 0x40f0);
    assert_eq!(of(0x0076_0005, &block(8, &[1], &[])), 0x40f0);
    assert_eq!(of(0x0078_0005, &block(4096, &[], &[])), 0x74f0);
    assert_eq!(of(0x0078_0005, &block(20, &[], &[0, 0, 0, 4])), 0x300);
    assert_eq!(of(0x0077_0005, &block(8, &[], &[])), 0x300);
    let memory = test_memory(1 << 20);
    for address in [0x1000, 0x4004, 0x8000_4000] {
        assert_eq!(
            Sccb::read(&memory, address).unwrap_err(),
            ProgramInterruption::Specification
        );
    }
    assert_eq!(
        Sccb::read(&memory, 0x10_0000).unwrap_err(),
        ProgramInterruption::Addressing
    );
    memory.write_obj(7_u8, GuestAddress(0x4001)).unwrap();
    assert!(Sccb::read(&memory, 0x4000).is_err());
}

#[test]
fn a_block_stays_within_its_page() {
    let memory = test_memory(1 << 20);
    let at = GuestAddress(0x4ff8);
    memory.write_slice(&[0, 9], at).unwrap();
    let mut sccb = Sccb::read(&memory, at.0).unwrap();
    sccb.answer(0x0002_0001, &MACHINE, &mut Events::default());
    sccb.write(&memory).unwrap();
    assert_eq!(
        memory.read_obj::<Be16>(GuestAddress(0x4ffe)).unwrap(),
        0x100
    );
}

proptest! {
    #[test]
    fn any_block_is_answered_within_itself(
        command in prop_oneof![
            Just(0x0002_0001_u32), Just(0x0001_0001), Just(0x0078_0005), Just(0x0076_0005), Just(0x0077_0005),
            any::<u32>(),
        ],
        address in prop_oneof![3 => (0x3ff_u64..0x2000).prop_map(|n| n * 8), 1 => any::<u64>()],
        begin in prop::collection::vec(any::<u8>(), 96),
        length in prop_oneof![0..64_u16, Just(4096), any::<u16>()],
        cpus in 0..400_u32,
        ram in any::<u64>(),
        input in 0..5000_usize,
    ) {
        let memory = test_memory(64 << 10);
        let mut bytes = begin;
        bytes.resize(4096, 0);
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        let fits = memory.write_slice(&bytes, GuestAddress(address)).is_ok();
        let mut events = Events::default();
        events.input = vec![b'x'; input].into();
        if let Ok(mut sccb) = Sccb::read(&memory, address) {
            let machine = Machine { cpus, memory: ram };
            let mask = block(4096, &[], b"\0\0\0\x04\xff\xff\xff\xff");
            call(0x0078_0005, &mask, &machine, &mut events);
            let text = sccb.answer(command, &machine, &mut events);
            prop_assert!(text.len() <= 4096);
            prop_assert!(sccb.bytes.len() <= 4096);
            if fits {
                sccb.write(&memory).unwrap();
            }
        }
    }
}
