//! What a driver gets that keeps the rules.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_SECURE_ERASE,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::guest_test::*;
use super::*;
use crate::testing::{Buffer, FakeWatch};

const OK: u8 = Status::Ok as u8;
const IO_ERROR: u8 = Status::IoError as u8;
const UNSUPPORTED: u8 = Status::Unsupported as u8;

/// With io_uring and without.
fn both(check: impl Fn(Driver)) {
    for ring in [true, false] {
        check(
            Made {
                ring,
                ..Made::default()
            }
            .driver(),
        );
    }
}

#[test]
fn what_is_written_is_in_the_file_and_is_read_again() {
    both(|mut driver| {
        let data = pattern(3 * 4096);
        driver.write(DATA, &data);
        // Pieces that are not in order, and none of a block's size.
        let pieces = [(0, 100), (100, 5000), (5100, 12288 - 5100)];
        let pieces = |writable| pieces.map(|(at, length)| piece(DATA + at, length, writable));
        assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 8, &pieces(false)), (OK, 1));
        assert_eq!(driver.contents()[4096..4 * 4096], data);
        driver.write(DATA, &[0; 3 * 4096]);
        let answer = driver.ask(VIRTIO_BLK_T_IN, 8, &pieces(true));
        assert_eq!(answer, (OK, 3 * 4096 + 1));
        assert_eq!(driver.read(DATA, data.len()), data);
    });
}

#[test]
fn requests_of_all_queues_are_worked_on_together() {
    both(|mut driver| {
        driver.fill(&pattern(SIZE as usize));
        let mut posted = Vec::new();
        for number in 0..60u64 {
            let to = piece(DATA + number * 4096, 4096, true);
            let queue = number as usize % 2;
            posted.push((
                queue,
                driver.post(queue, VIRTIO_BLK_T_IN, 8 * number, &[to]),
            ));
        }
        let mut watch = FakeWatch::default();
        for queue in 0..2 {
            driver
                .disk
                .kicked(queue, &mut driver.queues, &mut watch)
                .unwrap();
        }
        assert!(driver.disk.drained(&mut driver.queues, &mut watch));
        assert_eq!(driver.read(DATA, 60 * 4096), pattern(60 * 4096));
        for ring in &mut driver.rings {
            assert_eq!(std::iter::from_fn(|| ring.used()).count(), 30);
        }
        for (queue, status) in posted {
            assert_eq!(driver.read(status, 1), [OK], "queue {queue}");
        }
        for queue in &driver.queues {
            assert_eq!(queue.call().read().unwrap(), 1, "one signal is enough");
        }
    });
}

/// More than the device works on at once: the others wait in their queue, and are not forgotten.
#[test]
fn more_requests_than_there_is_room_for_wait() {
    let mut driver = Made::default().driver();
    let mut watch = FakeWatch::default();
    driver.disk.under_way = UnderWay::new(3);
    for number in 0..10 {
        let to = piece(DATA + number * 512, 512, true);
        driver.post(0, VIRTIO_BLK_T_IN, number, &[to]);
    }
    let mut answered = 0;
    let mut kicks = 0;
    while answered < 10 {
        driver
            .disk
            .kicked(0, &mut driver.queues, &mut watch)
            .unwrap();
        assert!(driver.disk.drained(&mut driver.queues, &mut watch));
        answered += std::iter::from_fn(|| driver.rings[0].used()).count();
        kicks += 1;
        // The device has kicked itself, if there is more.
        assert_eq!(driver.queues[0].kick().read().is_ok(), answered < 10);
    }
    assert_eq!(kicks, 4);
}

#[test]
fn a_range_is_cleared() {
    both(|mut driver| {
        for (kind, flags) in [
            (VIRTIO_BLK_T_DISCARD, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 1),
        ] {
            driver.fill(&pattern(SIZE as usize));
            let ask = range(&driver, 8, 16, flags);
            assert_eq!(driver.ask(kind, 0, &[ask]), (OK, 1));
            let contents = driver.contents();
            assert!(contents[4096..4096 + 8192].iter().all(|&byte| byte == 0));
            assert_eq!(contents[..4096], pattern(4096));
            assert_eq!(
                contents[12288..SIZE as usize],
                pattern(SIZE as usize)[12288..]
            );
        }
    });
}

#[test]
fn of_ranges_only_what_is_known_is_done() {
    let mut driver = Made::default().driver();
    driver.fill(&pattern(SIZE as usize));
    let ask = range(&driver, 0, 8, 2);
    assert_eq!(
        driver.ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, &[ask]).0,
        UNSUPPORTED
    );
    let ask = range(&driver, 0, 8, 1);
    assert_eq!(driver.ask(VIRTIO_BLK_T_DISCARD, 0, &[ask]).0, UNSUPPORTED);
    assert_eq!(
        driver.ask(VIRTIO_BLK_T_SECURE_ERASE, 0, &[ask]).0,
        UNSUPPORTED
    );
    for (sector, sectors) in [
        (2047, 2),
        (0, 0),
        (u64::MAX, 8),
        (u64::MAX / 512, 8),
        (0, u32::MAX),
    ] {
        let ask = range(&driver, sector, sectors, 0);
        let answer = driver.ask(VIRTIO_BLK_T_DISCARD, 0, &[ask]);
        assert_eq!(answer.0, IO_ERROR, "{sectors} from {sector}");
    }
    let two = piece(DATA, 32, false);
    assert_eq!(driver.ask(VIRTIO_BLK_T_DISCARD, 0, &[two]).0, IO_ERROR);
    assert_eq!(driver.contents()[..SIZE as usize], pattern(SIZE as usize));
}

fn range(driver: &Driver, sector: u64, sectors: u32, flags: u32) -> Buffer {
    driver.write(DATA, &sector.to_le_bytes());
    driver.write(DATA + 8, &sectors.to_le_bytes());
    driver.write(DATA + 12, &flags.to_le_bytes());
    piece(DATA, 16, false)
}

#[test]
fn requests_past_the_end_empty_and_unaligned_ones_fail() {
    let mut driver = Made::default().driver();
    for (sector, length, expected) in [
        (2047, 512, OK),
        // The last 100 bytes of the file are no whole sector.
        (2048, 512, IO_ERROR),
        (2047, 1024, IO_ERROR),
        (0, 0, IO_ERROR),
        (0, 100, IO_ERROR),
        (1 << 54, 512, IO_ERROR),
        (1 << 55, 512, IO_ERROR),
        (u64::MAX, 512, IO_ERROR),
    ] {
        for (kind, writable) in [(VIRTIO_BLK_T_IN, true), (VIRTIO_BLK_T_OUT, false)] {
            let data = [piece(DATA, length, writable)];
            let data = if length == 0 { &[][..] } else { &data };
            let (status, _) = driver.ask(kind, sector, data);
            assert_eq!(status, expected, "{length} bytes at sector {sector}");
        }
    }
}

#[test]
fn a_disk_that_is_read_only_stays_as_it_is() {
    let mut driver = Made {
        read_only: true,
        ..Made::default()
    }
    .driver();
    assert_ne!(driver.disk.features & 1 << VIRTIO_BLK_F_RO, 0);
    driver.fill(&pattern(SIZE as usize));
    let answer = driver.ask(VIRTIO_BLK_T_OUT, 0, &[piece(DATA, 512, false)]);
    assert_eq!(answer, (IO_ERROR, 1));
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        let ask = range(&driver, 0, 8, 0);
        assert_eq!(driver.ask(kind, 0, &[ask]).0, IO_ERROR);
    }
    assert_eq!(
        driver.ask(VIRTIO_BLK_T_IN, 0, &[piece(DATA, 512, true)]).0,
        OK
    );
    assert_eq!(driver.contents()[..SIZE as usize], pattern(SIZE as usize));
}

#[test]
fn the_serial_number_is_told() {
    let mut driver = Made::default().driver();
    let answer = driver.ask(VIRTIO_BLK_T_GET_ID, 0, &[piece(DATA, 20, true)]);
    assert_eq!(answer, (OK, 21));
    assert_eq!(
        &driver.read(DATA, 20),
        b"runq-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    );
    let answer = driver.ask(VIRTIO_BLK_T_GET_ID, 0, &[piece(DATA, 19, true)]);
    assert_eq!(answer, (IO_ERROR, 1));
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let driver = Made::default().driver();
    let mut space = [0; 60];
    driver.disk.config.read(0, &mut space);
    assert_eq!(space[..8], 2048u64.to_le_bytes());
    assert_eq!(space[12..16], 254u32.to_le_bytes());
    assert_eq!(space[20..24], 512u32.to_le_bytes());
    assert_eq!(space[24], 3, "eight logical blocks are a physical one");
    assert_eq!(space[32], 1, "writes are cached");
    assert_eq!(space[34..36], 2u16.to_le_bytes());
    assert_ne!(driver.disk.features & 1 << VIRTIO_BLK_F_MQ, 0);
}

/// A disk of blocks of 4096 bytes ends with its last whole one.
#[test]
fn the_size_is_one_of_whole_blocks() {
    let made = Made::default();
    let mut config = config(tempfile::tempfile().unwrap(), &made);
    config.size = 3 * 4096 + 512;
    config.blocks.logical = 4096;
    let disk = Blk::new(config).unwrap();
    let mut capacity = [0; 8];
    disk.config.read(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 24);
}

#[test]
fn who_decides_whether_writes_are_stable() {
    let stable = |cache, features| {
        let driver = Made {
            cache,
            features,
            ..Made::default()
        }
        .driver();
        driver.disk.writes_are_stable()
    };
    assert!(stable(Cache::Writethrough, !0));
    assert!(!stable(Cache::Writeback, !0));
    assert!(!stable(Cache::None, !0));
    // A driver that does not know flushes.
    assert!(stable(Cache::Writeback, 0));
    assert!(stable(Cache::None, 0));
    assert!(!stable(Cache::Unsafe, 0));
    // The driver's own choice, until the reset.
    let mut driver = Made::default().driver();
    driver.disk.config.write(WRITABLE.start, &[0]);
    assert!(driver.disk.writes_are_stable());
    driver.disk.stop();
    assert!(!driver.disk.writes_are_stable());
}

#[test]
fn flushes_are_answered_in_every_mode() {
    for cache in Cache::ALL {
        let mut driver = Made {
            cache,
            ..Made::default()
        }
        .driver();
        assert_eq!(driver.ask(VIRTIO_BLK_T_FLUSH, 0, &[]), (OK, 1));
    }
}

#[test]
fn a_file_that_becomes_shorter_is_an_io_error() {
    both(|mut driver| {
        driver.file.set_len(4096).unwrap();
        let answer = driver.ask(VIRTIO_BLK_T_IN, 0, &[piece(DATA, 8192, true)]);
        assert_eq!(answer, (IO_ERROR, 1));
        let answer = driver.ask(VIRTIO_BLK_T_IN, 0, &[piece(DATA, 4096, true)]);
        assert_eq!(answer.0, OK, "what is there is still read");
    });
}

/// A file that takes nothing more, as one of a full file system does.
#[test]
fn a_host_that_is_full_is_an_io_error_and_no_end() {
    for ring in [true, false] {
        let mut options = std::fs::OpenOptions::new();
        let full = options.read(true).write(true).open("/dev/full").unwrap();
        let made = Made {
            ring,
            ..Made::default()
        };
        let mut driver = made.driver_of(full);
        let answer = driver.ask(VIRTIO_BLK_T_OUT, 0, &[piece(DATA, 4096, false)]);
        assert_eq!(answer, (IO_ERROR, 1));
        let answer = driver.ask(VIRTIO_BLK_T_IN, 0, &[piece(DATA, 4096, true)]);
        assert_eq!(answer.0, OK);
    }
}

/// What a disk is, is found by what it begins with: the guest has no say in it.
#[test]
fn a_raw_image_stays_one() {
    both(|mut driver| {
        driver.fill(&pattern(SIZE as usize));
        let mut data = pattern(8192);
        data[..4].copy_from_slice(&QCOW2_MAGIC);
        driver.write(DATA, &data);
        let whole = [piece(DATA, 8192, false)];
        let pieces = [piece(DATA, 3, false), piece(DATA + 3, 509, false)];
        for header in [&whole[..], &pieces] {
            assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, header), (IO_ERROR, 1));
        }
        assert_eq!(driver.contents()[..SIZE as usize], pattern(SIZE as usize));
        // Elsewhere it is data as any other, and so is other data there.
        assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 1, &whole).0, OK);
        assert_eq!(driver.contents()[512..8704], data);
        driver.write(DATA, &[7; 8192]);
        assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, &whole).0, OK);
        assert_eq!(driver.contents()[..8192], [7; 8192]);
        driver.disk.found_raw = false;
        driver.write(DATA, &data);
        assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, &whole).0, OK);
        assert_eq!(driver.contents()[..8192], data);
    });
}

#[test]
fn a_reset_waits_for_what_is_under_way() {
    let mut driver = Made::default().driver();
    driver.fill(&pattern(SIZE as usize));
    driver.post(0, VIRTIO_BLK_T_IN, 0, &[piece(DATA, 1 << 19, true)]);
    let mut watch = FakeWatch::default();
    driver
        .disk
        .kicked(0, &mut driver.queues, &mut watch)
        .unwrap();
    driver.disk.stop();
    assert!(driver.disk.under_way.is_empty());
}
