//! Drivers that keep no rule.

use proptest::prelude::*;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;

use super::guest_test::*;
use super::*;
use crate::testing::{Buffer, FakeWatch};

const OK: u8 = Status::Ok as u8;
const IO_ERROR: u8 = Status::IoError as u8;

#[test]
fn memory_that_is_not_there_is_an_io_error() {
    let mut driver = Made::default().driver();
    for address in [MEMORY as u64, u64::MAX - 511, MEMORY as u64 - 256] {
        let data = [piece(DATA, 512, true), piece(address, 512, true)];
        assert_eq!(driver.ask(VIRTIO_BLK_T_IN, 0, &data), (IO_ERROR, 1));
    }
}

#[test]
fn chains_that_are_no_requests_come_back() {
    let mut driver = Made::default().driver();
    for chain in [
        // No status, no header, half a header, and a status that is nowhere.
        &[piece(DATA, 16, false)][..],
        &[piece(DATA, 16, true)],
        &[piece(DATA, 15, false), piece(DATA, 1, true)],
        &[piece(DATA, 16, false), piece(u64::MAX, 1, true)],
        &[piece(DATA, 16, false), piece(MEMORY as u64, 1, true)],
    ] {
        let head = driver.rings[0].add(chain);
        driver.run(0);
        assert_eq!(driver.rings[0].used(), Some((head.into(), 0)), "{chain:?}");
    }
}

#[test]
fn a_header_in_pieces_is_one() {
    let mut driver = Made::default().driver();
    driver.write(DATA, &[0; 16]);
    let chain = [
        piece(DATA, 7, false),
        piece(DATA + 7, 9, false),
        piece(DATA + 512, 100, true),
        // The status is the last byte, wherever that is.
        piece(DATA + 612, 413, true),
    ];
    driver.write(DATA + 1024, &[NONE]);
    driver.rings[0].add(&chain);
    driver.run(0);
    assert_eq!(driver.rings[0].used(), Some((0, 513)));
    assert_eq!(driver.read(DATA + 1024, 1), [OK]);
}

/// The rule is that no chain is longer than its queue; more pieces than a system call takes fail.
#[test]
fn a_thousand_descriptors_are_a_request() {
    for (count, expected) in [(1000, OK), (1023, OK)] {
        let mut driver = Made::default().driver();
        driver.fill(&pattern(SIZE as usize));
        let data: Vec<_> = (0..count)
            .map(|i| piece(DATA + i * 512, 512, true))
            .collect();
        let status = indirect(&mut driver, &data);
        driver.run(0);
        assert_eq!(driver.read(status, 1), [expected]);
        assert_eq!(
            driver.read(DATA, 512 * count as usize),
            pattern(512 * count as usize)
        );
    }
    // More than that is no request: the driver has to reset the device.
    let mut driver = Made::default().driver();
    let data: Vec<_> = (0..2000).map(|_| piece(DATA, 512, true)).collect();
    indirect(&mut driver, &data);
    let mut watch = FakeWatch::default();
    assert!(
        driver
            .disk
            .kicked(0, &mut driver.queues, &mut watch)
            .is_err()
    );
}

/// Posts a read of sector 0 whose descriptors are in an indirect table. Returns where its status is.
fn indirect(driver: &mut Driver, data: &[Buffer]) -> u64 {
    const TABLE: u64 = 0x30_0000;
    let (header, status) = (0x10_0000, 0x10_1000);
    driver.write(header, &[0; 16]);
    driver.write(status, &[NONE]);
    let mut chain = vec![piece(header, 16, false)];
    chain.extend(data);
    chain.push(piece(status, 1, true));
    for (number, buffer) in chain.iter().enumerate() {
        let at = TABLE + 16 * number as u64;
        let next = number + 1;
        let flags = u16::from(next < chain.len()) | u16::from(buffer.writable) << 1;
        driver.write(at, &buffer.address.to_le_bytes());
        driver.write(at + 8, &buffer.length.to_le_bytes());
        driver.write(at + 12, &flags.to_le_bytes());
        driver.write(at + 14, &(next as u16).to_le_bytes());
    }
    let table = piece(TABLE, 16 * chain.len() as u32, false);
    driver.rings[0].set_descriptor(0, table, 4, 0);
    driver.rings[0].make_available(0);
    status
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever descriptors there are, the device comes to rest, and says no more than that it has
    /// written what the chain had room for.
    #[test]
    fn any_driver_is_survived(
        kind in prop_oneof![0..5u32, 11..15u32, any::<u32>()],
        sector in prop_oneof![0..2100u64, any::<u64>()],
        pieces in prop::collection::vec(
            (prop_oneof![DATA..MEMORY as u64, any::<u64>()],
             prop_oneof![0..5000u32, any::<u32>()], any::<bool>()), 0..6),
        links in prop::collection::vec((0..8u16, 0..10u16), 8),
        heads in prop::collection::vec(0..10u16, 0..4),
        ring in any::<bool>(),
    ) {
        let mut driver = Made { ring, ..Made::default() }.driver();
        let pieces: Vec<_> = pieces.iter().map(|&(at, length, w)| piece(at, length, w)).collect();
        driver.post(0, kind, sector, &pieces);
        for (index, &(flags, next)) in links.iter().enumerate() {
            if let Some(buffer) = pieces.get(index) {
                driver.rings[0].set_descriptor(100 + index as u16, *buffer, flags, 100 + next);
            }
        }
        for head in heads {
            driver.rings[0].make_available(100 + head);
        }
        let mut watch = FakeWatch::default();
        if driver.disk.kicked(0, &mut driver.queues, &mut watch).is_ok() {
            prop_assert!(driver.disk.drained(&mut driver.queues, &mut watch));
        }
        driver.disk.stop();
        prop_assert!(driver.disk.under_way.is_empty());
        prop_assert_eq!(driver.file.metadata().unwrap().len(), SIZE + 100);
    }
}
