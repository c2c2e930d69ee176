//! A disk in an image.

use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatCreateBuilder, FormatDriverBuilder, StorageOpenOptions};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::super::guest_test::*;
use super::super::request::Status;
use super::*;
use crate::device::VirtioDevice;

const OK: (u8, u32) = (Status::Ok as u8, 1);

fn storage(file: &File) -> file::File {
    let options = StorageOpenOptions::new().write(true);
    file::File::from_open_file(file.try_clone().unwrap(), options).unwrap()
}

fn open(file: &File) -> Image {
    let ordered = Ordered::new(storage(file), true).unwrap();
    let image = Qcow2::<Ordered<file::File>>::builder(ordered).write(true);
    Image {
        access: FormatAccess::new(image.open(DenyImplicitOpenGate::default()).unwrap()),
        locked: Vec::new(),
    }
}

/// A disk of [`SIZE`] bytes in an image with clusters of this size.
fn disk(cluster: usize) -> (Driver, File) {
    let file = tempfile::tempfile().unwrap();
    let made = Qcow2::<file::File>::create_builder(storage(&file));
    made.size(SIZE).cluster_size(cluster).create().unwrap();
    let made = Made {
        image: Some(open(&file)),
        ..Made::default()
    };
    (made.driver(), file)
}

#[test]
fn what_is_written_is_read_again_and_cleared() {
    for cluster in [512, 1 << 16, 1 << 21] {
        let (mut driver, file) = disk(cluster);
        let mut expected = pattern(SIZE as usize);
        driver.write(DATA, &expected);
        let whole = |writable| [piece(DATA, SIZE as u32, writable)];
        assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, &whole(false)), OK);
        for (kind, sector, sectors) in [
            (VIRTIO_BLK_T_WRITE_ZEROES, 3u64, 1000u32),
            (VIRTIO_BLK_T_DISCARD, 1024, 512),
            (VIRTIO_BLK_T_WRITE_ZEROES, 2047, 1),
        ] {
            driver.write(DATA, &sector.to_le_bytes());
            driver.write(DATA + 8, &sectors.to_le_bytes());
            driver.write(DATA + 12, &[0; 4]);
            assert_eq!(driver.ask(kind, 0, &[piece(DATA, 16, false)]), OK);
            let from = sector as usize * 512;
            expected[from..from + sectors as usize * 512].fill(0);
        }
        let (status, _) = driver.ask(VIRTIO_BLK_T_IN, 0, &whole(true));
        assert_eq!(status, OK.0);
        assert!(driver.read(DATA, SIZE as usize) == expected, "{cluster}");
        assert_eq!(driver.ask(VIRTIO_BLK_T_FLUSH, 0, &[]), OK);
        // All of it is in the file, for who opens it next.
        let mut found = vec![1; SIZE as usize];
        open(&file).access.read(&mut found[..], 0).unwrap();
        assert!(found == expected, "{cluster}");
    }
}

/// What was not flushed is in the file as well, when the machine ends or is reset.
#[test]
fn the_end_loses_nothing() {
    let ends: [fn(&mut Driver); 2] = [|driver| driver.run(0), |driver| driver.disk.stop()];
    for end in ends {
        let (mut driver, file) = disk(1 << 16);
        driver.write(DATA, &pattern(4096));
        assert_eq!(
            driver.ask(VIRTIO_BLK_T_OUT, 8, &[piece(DATA, 4096, false)]),
            OK
        );
        end(&mut driver);
        let mut found = vec![0; 4096];
        open(&file).access.read(&mut found[..], 4096).unwrap();
        assert!(found == pattern(4096));
        // Nothing of the monitor's ends in order after this.
        std::mem::forget(driver);
    }
}
