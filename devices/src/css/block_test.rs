//! Bytes as the Principles of Operation have them, and any others.

use proptest::prelude::*;

use super::*;

#[test]
fn fields_are_where_they_belong() {
    // Offsets of struct pmcw, cmd_scsw and schib of Linux (arch/s390/include/asm/{scsw,schid}.h, drivers/s390/cio/cio.h).
    assert_eq!((Pmcw::SIZE, Scsw::SIZE, Schib::SIZE), (28, 12, 52));
    assert_eq!((Irb::SIZE, Orb::SIZE, SenseId::SIZE), (64, 12, 8));
    let mut bytes: [u8; 52] = std::array::from_fn(|n| n as u8);
    bytes[4] = 0x28;
    let schib = Schib::from_bytes(&bytes);
    let Pmcw {
        parameter,
        device,
        available,
        paths,
        characteristics,
        ..
    } = schib.pmcw;
    assert_eq!((parameter, device), (0x0001_0203, 0x0607));
    assert_eq!(
        (available, paths[0], characteristics),
        (15, 16, 0x1819_1a1b)
    );
    assert_eq!(schib.pmcw.interruption_class(), 5);
    let Scsw {
        program,
        device_status,
        count,
        ..
    } = schib.scsw;
    assert_eq!((program, device_status, count), (0x2021_2223, 36, 0x2627));
    assert_eq!(schib.measurement_block, 0x2829_2a2b_2c2d_2e2f);
}

#[test]
fn a_subchannel_is_named_by_a_word() {
    let id = |word| SubchannelId::from_word(word).map(|id| (id.image, id.set, id.number));
    assert_eq!(id(0x0001_0007), Some((0, 0, 7)));
    assert_eq!(id(0xfe0d_ffff), Some((0xfe, 2, 0xffff)));
    assert_eq!(id(0x0000_0007), None);
    assert_eq!(id(0xfe01_0007), None);
}

#[test]
fn commands_of_both_formats() {
    let ccw = Ccw {
        command: 0xe4,
        flags: command::SUPPRESS_LENGTH,
        count: 7,
        address: 0x12_3456,
    };
    let zero = [0xe4, 0x12, 0x34, 0x56, 0x20, 0, 0, 7];
    let one = [0xe4, 0x20, 0, 7, 0, 0x12, 0x34, 0x56];
    assert_eq!(Ccw::from_bytes(Format::Zero, &zero), Some(ccw));
    assert_eq!(Ccw::from_bytes(Format::One, &one), Some(ccw));
    let beyond = [0xe4, 0x20, 0, 7, 0x80, 0, 0, 0];
    assert_eq!(Ccw::from_bytes(Format::One, &beyond), None);
    let transfer = Ccw {
        command: 0xf8,
        ..ccw
    };
    assert!(transfer.is_transfer(Format::Zero) && !transfer.is_transfer(Format::One));
}

#[test]
fn requests_that_no_subchannel_takes() {
    let orb = |control, program| Orb {
        control,
        program,
        ..Orb::default()
    };
    assert_eq!(orb(0x80, 0x1000).format(), Format::One);
    assert!(orb(0x80, 0x1000).is_valid());
    assert!(!orb(0x84, 0x1000).is_valid() && !orb(0x80, 0x8000_0000).is_valid());
    let schib = |flags, characteristics, measurement_block| Schib {
        pmcw: Pmcw {
            flags,
            characteristics,
            ..Pmcw::default()
        },
        measurement_block,
        ..Schib::default()
    };
    assert!(schib(pmcw_flags::ENABLED, 1, 1).is_valid());
    assert!(schib(0, 4, 0x40).is_valid() && !schib(0, 4, 1).is_valid());
    assert!(!schib(0x0100, 0, 0).is_valid() && !schib(0, 8, 0).is_valid());
}

#[test]
fn a_virtio_device_tells_what_it_is() {
    let bytes = SenseId::virtio(26).to_bytes();
    assert_eq!(bytes, [0xff, 0x38, 0x32, 26, 0, 0, 0, 0]);
}

/// The answer to a request, and its code.
fn ask(request: &[u8]) -> Option<(Vec<u8>, u16)> {
    let mut page = [0; 4096];
    page[..request.len()].copy_from_slice(request);
    let (_, answer) = chsc::answer(&page)?;
    let code = u16::from_be_bytes([answer[2], answer[3]]);
    Some((answer, code))
}

#[test]
fn the_only_channel_path() {
    // In format 1 (bit 3), of paths 0 to 255.
    let (answer, code) = ask(b"\0\x10\0\x02\x10\0\0\0\0\0\0\xff").unwrap();
    assert_eq!((answer.len(), code), (40, 1));
    assert_eq!(answer[..12], *b"\0\x28\0\x01\0\0\0\x01\x80\0\x32\0");
    let (answer, _) = ask(b"\0\x10\0\x02\0\0\0\x01\0\0\0\xff").unwrap();
    assert_eq!(answer, b"\0\x08\0\x01\0\0\0\0");
}

#[test]
fn other_calls() {
    let code = |request: &[u8]| ask(request).unwrap().1;
    let (answer, done) = ask(b"\0\x10\0\x10").unwrap();
    assert_eq!((answer.len(), done), (4080, 1));
    assert_eq!(code(b"\0\x10\0\x0e"), 5);
    assert_eq!(code(b"\x04\0\0\x31\0\0\0\x02"), 0x101);
    assert_eq!(code(b"\0\x10\0\x31"), 3);
    assert_eq!(code(b"\0\x10\0\x02\0\0\0\x02\0\0\0\x01"), 3);
    assert_eq!(code(b"\0\x10\0\x02\0\x01\0\0"), 8);
    assert_eq!(code(b"\0\x10\0\x02\x01\0\0\0"), 7);
    assert_eq!(code(b"\0\x10\x12\x34"), 4);
    for length in [0_u16, 8, 20, 4096, 0xfff0] {
        assert!(ask(&length.to_be_bytes()).is_none());
    }
}

proptest! {
    #[test]
    fn blocks_keep_every_byte(bytes: [u8; 32]) {
        let all: [u8; 52] = std::array::from_fn(|n| bytes[n % 32]);
        prop_assert_eq!(Schib::from_bytes(&all).to_bytes(), all);
        let all: [u8; 64] = std::array::from_fn(|n| bytes[n % 32]);
        prop_assert_eq!(Irb::from_bytes(&all).to_bytes(), all);
        let all: [u8; 12] = std::array::from_fn(|n| bytes[n]);
        prop_assert_eq!(Orb::from_bytes(&all).to_bytes(), all);
    }

    #[test]
    fn any_call_is_answered_within_its_page(
        begin: [u8; 16],
        command in prop_oneof![Just(0x02_u16), Just(0x10), Just(0x31), Just(0x0e), any::<u16>()],
        length in prop_oneof![Just(16_u16), Just(0x400), 0..600_u16, any::<u16>()],
    ) {
        let mut page = [0; 4096];
        page[..16].copy_from_slice(&begin);
        page[..2].copy_from_slice(&length.to_be_bytes());
        page[2..4].copy_from_slice(&command.to_be_bytes());
        if let Some((at, answer)) = chsc::answer(&page) {
            prop_assert!(at + answer.len() <= 4096);
            prop_assert_eq!(usize::from(u16::from_be_bytes([answer[0], answer[1]])), answer.len());
        }
    }
}
