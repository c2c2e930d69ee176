//! Any instruction with any operand, and any channel program.

use proptest::prelude::*;

use super::*;
use crate::dev::rng;
use crate::event_loop::add_device;
use crate::testing::FakeFabric;
use crate::testing::channel::{BLOCK, ChannelGuest, DATA, FIRST, MEMORY, PROGRAM, format_1};
use crate::transport::ccw::VirtioCcw;

/// A guest with a device, which has been agreed with on a revision.
fn guest() -> ChannelGuest {
    let mut guest = ChannelGuest::new();
    let device = Box::new(rng::Rng::new(rng::Config::default()).unwrap());
    let handle = add_device(&mut guest.event_loop, device).unwrap();
    let place = guest.css.free_place().unwrap();
    let memory = std::sync::Arc::clone(&guest.memory);
    let fabric = std::sync::Arc::new(FakeFabric::default());
    let device = VirtioCcw::new(handle, memory, fabric, place).unwrap();
    guest.css.add(Box::new(device)).unwrap();
    guest.enable();
    guest.done(0x83, &[0, 2, 0, 0]);
    guest
}

/// Whatever was before, the device can be found.
fn is_usable(guest: &mut ChannelGuest) -> bool {
    guest.serve();
    guest.first(Instruction::ClearSubchannel);
    guest.first(Instruction::TestSubchannel);
    guest.enable();
    guest.interrupts();
    guest.done(command::SENSE_ID, &[0; 8]) == SenseId::virtio(4).to_bytes()
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let codes = vec![
        0xb230, 0xb231, 0xb232, 0xb233, 0xb234, 0xb235, 0xb238, 0xb239, 0xb25f, 0xb276,
    ];
    let known = prop::sample::select(codes);
    known.prop_filter_map("known", Instruction::from_opcode)
}

fn ccw() -> impl Strategy<Value = Ccw> {
    let commands = vec![
        0x03, 0x04, 0x08, 0xe4, 0x12, 0x22, 0x31, 0x33, 0x43, 0x73, 0x72,
    ];
    let place = prop_oneof![
        Just(DATA),
        (0..40_u32).prop_map(|n| PROGRAM + 8 * n),
        (0..0x20_u32).prop_map(|n| MEMORY as u32 - 0x10 + n),
        any::<u32>()
    ];
    let command = prop_oneof![4 => prop::sample::select(commands), 1 => any::<u8>()];
    let flags = prop_oneof![
        2 => prop::sample::select(vec![0, 0x20, 0x40, 0x60, 0x80]),
        1 => any::<u8>()
    ];
    let count = prop_oneof![0..40_u16, any::<u16>()];
    (command, flags, count, place).prop_map(|(command, flags, count, address)| Ccw {
        command,
        flags,
        count,
        address,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_instruction_is_answered(
        all in prop::collection::vec((
            instruction(),
            prop_oneof![Just(FIRST), (0..4_u32).prop_map(|n| FIRST + n), any::<u32>()],
            prop_oneof![Just(BLOCK), 0..MEMORY + 0x1000, any::<u64>()],
            prop::collection::vec(any::<u8>(), 64),
        ), 1..40)
    ) {
        let mut guest = guest();
        for (instruction, register_1, address, block) in all {
            guest.write(BLOCK, &block);
            match guest.execute(instruction, register_1, address) {
                Ok(code) => prop_assert!(code < 4),
                Err(error) => prop_assert!(!matches!(error.code(), Some(0))),
            }
        }
        prop_assert!(is_usable(&mut guest));
    }

    /// It ends, if only when the device has done what it waits for.
    #[test]
    fn any_program_ends(
        program in prop::collection::vec(ccw(), 1..40),
        control: u16,
        begin in prop_oneof![8 => Just(PROGRAM), 1 => any::<u32>()],
    ) {
        let mut guest = guest();
        for (ccw, at) in program.iter().zip((PROGRAM.into()..).step_by(8)) {
            guest.write(at, &format_1(ccw));
        }
        let orb = Orb { control: control & !4, paths: 0x80, program: begin & !(1 << 31), ..Orb::default() };
        prop_assert_eq!(guest.start_orb(&orb), 0);
        guest.serve();
        prop_assert_eq!(guest.first(Instruction::TestSubchannel), 0);
        let irb = Irb::from_bytes(&guest.bytes(BLOCK));
        prop_assert!(irb.scsw.control & 0x4001 == 0x4001);
        prop_assert!(is_usable(&mut guest));
    }

    #[test]
    fn any_subchannel_information_is_survived(block in prop::collection::vec(any::<u8>(), 52), valid: bool) {
        let mut guest = guest();
        let mut block = block;
        if valid {
            block[4] &= !7;
            block[24..28].fill(1);
        }
        guest.write(BLOCK, &block);
        let _ = guest.execute(Instruction::ModifySubchannel, FIRST, BLOCK);
        let schib = guest.schib();
        prop_assert_eq!((schib.pmcw.device, schib.pmcw.flags & 1, schib.pmcw.paths), (0, 1, [0; 8]));
        prop_assert!(is_usable(&mut guest));
    }

    #[test]
    fn any_call_is_answered(
        head in prop::collection::vec(any::<u8>(), 16),
        length in prop_oneof![Just(16_u16), Just(0x400), any::<u16>()],
        command in prop_oneof![Just(2_u16), Just(0x10), Just(0x31), Just(0x0e), Just(0x33), Just(0x34), Just(0x4c), any::<u16>()],
    ) {
        let guest = guest();
        guest.write(0x4000, &head);
        guest.write(0x4000, &length.to_be_bytes());
        guest.write(0x4002, &command.to_be_bytes());
        guest.write(0x5000, &[0xa5; 8]);
        let answered = guest.execute(Instruction::ChannelSubsystemCall, 0, 0x4000);
        prop_assert!(matches!(answered, Ok(0) | Err(Exception::Operand)));
        prop_assert_eq!(guest.bytes(0x5000), [0xa5; 8]);
    }
}
